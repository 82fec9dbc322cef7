"""What is known of each maker's software, without any of their chips."""

import pytest
import torch

from argosy.fleet.catalogue import chip, chips
from argosy.training.torch_island.adapters import (
    PowerMeter,
    adapter_of,
    amd_power_w,
    chip_of,
    device_name,
    device_of,
    memory_bytes_max,
    peak_flops,
)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-SXM"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("AMD Instinct MI300X OAM", "MI300X"),
        ("TPU v5 lite", "TPU-v5e"),
        ("Trainium2", "Trainium2"),
    ],
)
def test_a_drivers_name_finds_its_chip(name: str, known: str) -> None:
    assert chip_of(name) == chip(known)


def test_a_name_that_nobody_knows_is_no_chip() -> None:
    assert chip_of("Intel(R) Xeon(R) Processor") is None
    assert peak_flops(None, "bfloat16") is None


def test_the_maker_is_the_chips_and_not_the_devices() -> None:
    cuda = torch.device("cuda", 0)
    assert adapter_of(cuda, chip=chip("MI300X")).maker == "AMD"
    assert adapter_of(cuda, chip=chip("H100-SXM")).maker == "NVIDIA"
    assert adapter_of(torch.device("cpu"), chip=chip("Trainium2")).maker == "AWS"


def test_peaks_are_dense_and_in_16_bits_alone() -> None:
    h100 = chip("H100-SXM")
    assert peak_flops(h100, "bfloat16") == pytest.approx(989e12, rel=0.001)
    assert peak_flops(h100, "float32") is None
    for one in chips():
        assert peak_flops(one, "bfloat16") == one.bf16_flops


def test_a_cpu_has_a_name_and_nothing_to_tell_of_watts_or_memory() -> None:
    cpu = device_of("cpu")
    assert device_of("auto").type in {"cpu", "cuda", "xpu", "mps", "tpu", "neuron"}
    assert device_name(cpu)
    assert memory_bytes_max(cpu) is None
    assert PowerMeter(adapter_of(cpu), cpu).power_w() is None


def test_watts_of_both_forms_of_amds_tool_are_read() -> None:
    old = '[{"gpu": 0, "power": {"socket_power": {"value": 143, "unit": "W"}}}]'
    new = '{"gpu_data": [{"gpu": 0, "power": {"socket_power": {"value": 143, "unit": "W"}}}]}'
    assert amd_power_w(old) == amd_power_w(new) == 143.0
    assert amd_power_w('[{"gpu": 0, "power": "N/A"}]') is None
    assert amd_power_w("amd-smi: no driver") is None
