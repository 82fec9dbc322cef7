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
    print(f"reading {gguf.name}: tokenizer", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    print("dequantizing its tensors to bfloat16", flush=True)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    # The weights are plain now; saved with this, the folder would ask vLLM for the method "gguf".
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    print(f"writing {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
