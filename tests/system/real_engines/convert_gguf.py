"""Run by vLLM's interpreter: `python convert_gguf.py FILE.gguf FOLDER`.

Writes a Hugging Face folder: the tensors dequantized to bfloat16, the configuration, tokenizer and
chat template out of the GGUF file's metadata. Nothing is fetched.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Convert. Exits with the library's own words when it cannot."""
    gguf, folder = Path(sys.argv[1]), Path(sys.argv[2])
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    _say(f"reading {gguf.name}: tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(**source)
    _say("dequantizing its tensors to bfloat16")
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    # The weights are plain now; saved with this, the folder would ask vLLM for the method "gguf".
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    _say(f"writing {sum(p.numel() for p in model.parameters()):,} parameters")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
