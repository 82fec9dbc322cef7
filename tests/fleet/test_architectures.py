"""Architectures: computed totals equal the published ones; KV, FLOPs and readers are right."""

import msgspec
import pytest

from argosy.fleet.architectures import (
    Architecture,
    UnreadableConfig,
    architecture,
    architectures,
    attended_layer_tokens,
    attention_flops,
    attention_flops_per_pair,
    attention_parameters,
    dense_mlp_layers,
    dense_mlp_parameters,
    embedding_parameters,
    expert_parameters,
    from_config,
    full_attention_layers,
    head_parameters,
    kv_bytes,
    kv_bytes_per_token,
    layer_parameters_active,
    linear_flops_per_token,
    moe_layers,
    non_expert_parameters,
    router_parameters,
    state_bytes,
)
from argosy.fleet.catalogue import NotInCatalogue, energy_measurements

# Numbers of parameters in the published weights: the safetensors index of the model's page on
# Hugging Face, without multi-token prediction and vision towers. They agree within norms and
# biases of heads, which the dimensions leave out.
WEIGHTS = {
    "Llama-2-70B": 68_976_648_192,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
    "Llama-3.1-405B": 405_853_388_800,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "Llama-3.3-70B": 70_553_706_496,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Qwen3-235B-A22B": 235_093_634_560,
    "Mistral-7B": 7_241_732_096,
    "Mistral-7B-v0.3": 7_248_023_552,
    "Mixtral-8x7B": 46_702_792_704,
    "Mixtral-8x22B": 140_620_634_112,
    "SmolLM2-135M": 134_515_008,
    "SmolLM2-360M": 361_821_120,
    "SmolLM2-1.7B": 1_711_376_384,
    "BLOOM-176B": 176_247_271_424,
    "Nemotron-Nano-9B-v2": 8_888_227_328,
}

# What the makers say, rounded as they round: total and active in 1e9, how many of the two tables
# (embedding, head) they count as active, and where they say it. Only gpt-oss's paper says what it
# counts; for the others that column is what their number fits.
CLAIMS = {
    "Llama-4-Scout": (109, 17, 2, "Llama 4 model card; total with the vision tower"),
    "Llama-4-Maverick": (400, 17, 2, "Llama 4 model card"),
    "Qwen3-1.7B": (1.7, 1.7, 2, "Qwen3 model card"),
    "Qwen3-30B-A3B": (30.5, 3.3, 2, "Qwen3 model card"),
    "Qwen3-235B-A22B": (235, 22, 2, "Qwen3 model card"),
    "Qwen3-Coder-480B-A35B": (480, 35, 2, "Qwen3-Coder model card"),
    "Qwen3.5-397B-A17B": (397, 17, 2, "its name"),
    "DeepSeek-V3": (671, 37, 1, "arXiv 2412.19437"),
    "DeepSeek-R1": (671, 37, 1, "model card"),
    "DeepSeek-V3.2": (671, 37, 1, "model card; the indexer is not counted there"),
    "Kimi-K2": (1040, 32.6, 2, "arXiv 2507.20534"),
    "Kimi-K2.5": (1040, 32, 1, "model card: 1T and 32B"),
    "GLM-4.5": (355, 32, 0, "arXiv 2508.06471; total with multi-token prediction"),
    "GLM-4.6": (355, 32, 0, "model card"),
    "GLM-5": (744, 40, 0, "model card"),
    "MiniMax-M2": (230, 10, 0, "model card"),
    "MiniMax-M2.5": (230, 10, 0, "model card"),
    "Mixtral-8x7B": (46.7, 12.9, 2, "arXiv 2401.04088: 47B and 13B"),
    "Mixtral-8x22B": (141, 39, 2, "Mistral's announcement"),
    "gpt-oss-20b": (20.9, 3.6, 1, "arXiv 2508.10925: 20.91B and 3.61B"),
    "gpt-oss-120b": (116.8, 5.1, 1, "arXiv 2508.10925: 116.83B and 5.13B"),
    "Gemma-3-12B": (11.8, 11.8, 2, "arXiv 2503.19786: 1.0B + 10.8B"),
    "Gemma-3-27B": (27.0, 27.0, 2, "arXiv 2503.19786: 1.4B + 25.6B"),
    "Nemotron-Nano-12B-v2": (12.31, 12.31, 2, "safetensors index: 12.3B"),
}

# Bytes a token in bf16: published, or worked out by hand.
KV_BYTES_BF16 = {
    "Llama-3.1-8B": 131_072,  # 2 x 32 layers x 8 heads x 128 x 2 B
    "Llama-3.1-70B": 327_680,
    "Qwen3-30B-A3B": 98_304,
    "DeepSeek-V3": 70_272,  # arXiv 2505.09343 table 1: 70.272 KB
    "BLOOM-176B": 4_014_080,  # 2 x 70 x 14336 x 2 B
    "gpt-oss-120b": 73_728,
    "Qwen3.5-397B-A17B": 30_720,  # 15 layers of full attention only
}


def test_every_shipped_model_has_a_published_total_to_agree_with():
    names = {one.name for one in architectures()}
    assert names == WEIGHTS.keys() | CLAIMS.keys()


@pytest.mark.parametrize(("name", "published"), WEIGHTS.items())
def test_the_computed_total_is_that_of_the_published_weights(name: str, published: int):
    assert architecture(name).parameters_total == pytest.approx(published, rel=2e-4)


@pytest.mark.parametrize(("name", "claim"), CLAIMS.items())
def test_total_and_active_are_what_the_maker_says(name: str, claim: tuple[float, float, int, str]):
    total, active, tables, _ = claim
    own = architecture(name)
    table = embedding_parameters(own)
    counted = 1 if own.tied_embeddings else 2
    assert own.parameters_total / 1e9 == pytest.approx(total, rel=0.02)
    # "22B", "37B", "10B" are rounded to whole billions
    computed = (own.parameters_active - max(0, counted - tables) * table) / 1e9
    assert computed == pytest.approx(active, rel=0.02, abs=0.7 if active >= 10 else 0.06)


@pytest.mark.parametrize(("name", "published"), KV_BYTES_BF16.items())
def test_kv_bytes_per_token_are_the_published_ones(name: str, published: int):
    assert kv_bytes_per_token(architecture(name), 2) == published


@pytest.mark.parametrize("own", architectures(), ids=lambda one: one.name)
def test_the_parts_add_up(own: Architecture):
    routed = own.experts * expert_parameters(own) * moe_layers(own)
    assert non_expert_parameters(own) + routed == own.parameters_total
    tables = embedding_parameters(own) + head_parameters(own)
    assert layer_parameters_active(own) + tables + own.hidden == own.parameters_active
    assert own.parameters_active <= own.parameters_total
    assert (own.experts > 0) == (moe_layers(own) > 0) == (router_parameters(own) > 0)
    assert dense_mlp_layers(own) == 0 or dense_mlp_parameters(own) > 0
    assert full_attention_layers(own) >= 0
    assert attention_parameters(own) > 0
    assert own.sources


@pytest.mark.parametrize("own", architectures(), ids=lambda one: one.name)
def test_kv_grows_with_tokens_and_never_faster_than_full_attention(own: Architecture):
    held = [kv_bytes(own, tokens, 2) for tokens in (0, 1, 100, 5000, 100_000)]
    assert held == sorted(held)
    assert held[0] == state_bytes(own)
    for tokens, bytes_ in zip((0, 1, 100, 5000, 100_000), held, strict=True):
        assert bytes_ - held[0] <= tokens * kv_bytes_per_token(own, 2)
    assert kv_bytes(own, 100, 1) <= kv_bytes(own, 100, 2)


def test_a_windowed_layer_holds_its_window_and_no_more():
    own = architecture("gpt-oss-120b")
    layer = 2 * 8 * 64 * 2
    assert kv_bytes(own, 10_000, 2) == layer * 18 * (10_000 + 128)
    assert kv_bytes(own, 100, 2) == layer * 36 * 100
    assert attended_layer_tokens(own, 10_000) == 18 * (10_000 + 128)


def test_attention_flops_are_two_products_of_the_head_width():
    llama = architecture("Llama-3.1-8B")
    assert attention_flops_per_pair(llama, is_decode=True) == 4 * 32 * 128
    assert attention_flops(llama, 1000, is_decode=False) == 4 * 32 * 128 * 32 * 1000
    latent = architecture("DeepSeek-V3")
    assert attention_flops_per_pair(latent, is_decode=True) == 2 * 128 * (512 + 64 + 512)
    assert attention_flops_per_pair(latent, is_decode=False) == 2 * 128 * (128 + 64 + 128)


def test_sparse_attention_attends_to_its_choice_and_pays_for_choosing():
    sparse, full = architecture("DeepSeek-V3.2"), architecture("DeepSeek-V3")
    assert attended_layer_tokens(sparse, 100_000) == 61 * 2048
    near, far = (attention_flops(sparse, tokens, is_decode=True) for tokens in (50_000, 100_000))
    assert near < far < attention_flops(full, 100_000, is_decode=True)


def test_linear_flops_are_two_a_parameter_without_the_lookup():
    own = architecture("Llama-3.1-8B")
    matrices = own.parameters_total - embedding_parameters(own) - own.hidden
    assert linear_flops_per_token(own) == 2 * matrices
    assert linear_flops_per_token(own, with_head=False) == 2 * (matrices - head_parameters(own))
    tied = architecture("SmolLM2-135M")
    assert linear_flops_per_token(tied) == 2 * (tied.parameters_total - tied.hidden)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", "Llama-3.1-70B"),
        ("deepseek-ai/DeepSeek-R1", "DeepSeek-R1"),
        ("nvidia/DeepSeek-V3.1-NVFP4", "DeepSeek-V3"),
        ("nvidia/DeepSeek-R1-NVFP4", "DeepSeek-R1"),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "Llama-3.1-8B"),
        ("nvidia/Qwen3-32B-NVFP4", "Qwen3-32B"),
        ("zhipuai/GLM-5", "GLM-5"),
        ("MiniMaxAI/MiniMax-M2.5", "MiniMax-M2.5"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("Qwen/Qwen3.5-397B-A17B", "Qwen3.5-397B-A17B"),
        ("Qwen/Qwen3-235B-A22B-FP8", "Qwen3-235B-A22B"),
        ("moonshotai/Kimi-K2.5", "Kimi-K2.5"),
        ("someone/Qwen3-8B", "Qwen3-8B"),
        ("llama2-70b", "Llama-2-70B"),  # as Splitwise's table writes it
        ("bloom-176b", "BLOOM-176B"),
        ("SMOLLM2-135M", "SmolLM2-135M"),
    ],
)
def test_a_model_is_found_by_name_or_hugging_face_id(asked: str, name: str):
    assert architecture(asked).name == name


def test_every_model_whose_energy_was_measured_is_known():
    for one in energy_measurements():
        assert architecture(one.model).parameters_total > 0


def test_names_and_ids_belong_to_one_model_each():
    ids = [known.lower() for one in architectures() for known in (one.name, *one.huggingface_ids)]
    assert len(ids) == len(set(ids))


def test_an_unknown_model_is_refused_with_the_nearest_ones():
    with pytest.raises(NotInCatalogue, match=r'"Qwen3-8B".* argosy catalogue --models'):
        architecture("Qwen3-9B")


LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


@pytest.mark.parametrize(
    "missing", ["num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size"]
)
def test_a_missing_field_is_named(missing: str):
    config = {name: value for name, value in LLAMA.items() if name != missing}
    with pytest.raises(UnreadableConfig, match=f"tiny: config.json has no {missing}"):
        from_config(config, "tiny")


def test_a_field_of_a_wrong_type_is_named():
    with pytest.raises(UnreadableConfig, match="num_hidden_layers is 'two'"):
        from_config({**LLAMA, "num_hidden_layers": "two"}, "tiny")


def test_a_family_that_cannot_be_read_says_which_can():
    with pytest.raises(UnreadableConfig, match=r'model_type "t5" cannot be read.*llama'):
        from_config({**LLAMA, "model_type": "t5"}, "tiny")
    with pytest.raises(UnreadableConfig, match="no model_type"):
        from_config({}, "nothing")


def test_head_width_defaults_to_its_share_of_the_model():
    assert from_config(LLAMA, "tiny").head_dim == 16
    assert from_config({**LLAMA, "head_dim": 32}, "tiny").head_dim == 32
    assert from_config({**LLAMA, "num_key_value_heads": None}, "tiny").kv_heads == 4


def test_a_model_of_several_media_is_read_as_its_text_model():
    config = {
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "num_hidden_layers": 62,
            "hidden_size": 5376,
            "intermediate_size": 21504,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
            "head_dim": 128,
            "sliding_window": 1024,
        },
        "vision_config": {"hidden_size": 1152},
    }
    own = from_config(config, "Gemma-3-27B")
    shipped = architecture("Gemma-3-27B")
    assert (
        msgspec.structs.replace(
            own,
            huggingface_ids=shipped.huggingface_ids,
            sources=shipped.sources,
            notes=shipped.notes,
        )
        == shipped
    )


@pytest.mark.parametrize(
    ("more", "windows"),
    [
        ({"model_type": "mistral", "sliding_window": 32}, (32, 2)),
        ({"model_type": "mistral", "sliding_window": None}, (None, 0)),
        ({"model_type": "qwen3", "sliding_window": 32, "use_sliding_window": False}, (None, 0)),
        (
            {
                "model_type": "qwen2",
                "sliding_window": 32,
                "use_sliding_window": True,
                "max_window_layers": 1,
            },
            (32, 1),
        ),
        (
            {
                "model_type": "qwen3",
                "sliding_window": 32,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            (32, 1),
        ),
    ],
)
def test_windows_are_read_as_each_family_writes_them(more, windows):
    own = from_config({**LLAMA, **more}, "tiny")
    assert (own.window_tokens, own.window_layers) == windows
