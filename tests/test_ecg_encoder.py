"""The ECG encoder: ECG-JEPA's numbers from ECG-JEPA's weights, tokens in order, padding unseen."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from qoq_lib.model.configuration_qoq import EcgConfig
from qoq_lib.model.ecg_encoder import EcgEncoder, EcgProjector
from qoq_lib.model.ecg_jepa import EcgWeightsError, load_ecg_jepa, published_name
from qoq_lib.model.ecg_signal import prepare_ecg

SMALL: dict[str, Any] = {"hidden_size": 32, "depth": 3, "num_heads": 4}


def encoder_of(**sizes: Any) -> EcgEncoder:
    torch.manual_seed(0)
    return EcgEncoder(EcgConfig(**SMALL | sizes)).eval()


def ecgs(count: int, seconds: float = 10.0) -> torch.Tensor:
    rng = np.random.default_rng(count)
    signals = rng.normal(size=(count, 8, round(seconds * 250)))
    return torch.from_numpy(np.stack([prepare_ecg(signal, rate_hz=250) for signal in signals]))


def positions_by_hand(width: int) -> torch.Tensor:
    """ECG-JEPA's table, entry by entry: time first, then lead; sines first, then cosines."""
    table = torch.empty(8 * 50, width)
    quarter = width // 4
    for lead in range(8):
        for time in range(50):
            row = []
            for place in (time, lead):
                angles = [place / 10_000 ** (k / quarter) for k in range(quarter)]
                row += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            table[50 * lead + time] = torch.tensor(row)
    return table


def published(width: int, depth: int) -> dict[str, torch.Tensor]:
    """A random state dict with the names and shapes of ECG-JEPA's published encoder."""
    shapes: dict[str, tuple[int, ...]] = {"W_P.weight": (width, 50), "W_P.bias": (width,)}
    for block in range(depth):
        name = f"encoder_blocks.blocks.{block}"
        shapes |= {
            f"{name}.norm{k}.{kind}": (width,) for k in (1, 2) for kind in ("weight", "bias")
        }
        shapes |= {
            f"{name}.attn.qkv.weight": (3 * width, width),
            f"{name}.attn.proj.weight": (width, width),
            f"{name}.attn.proj.bias": (width,),
            f"{name}.mlp.fc1.weight": (4 * width, width),
            f"{name}.mlp.fc1.bias": (4 * width,),
            f"{name}.mlp.fc2.weight": (width, 4 * width),
            f"{name}.mlp.fc2.bias": (width,),
        }
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.empty(shape).uniform_(-0.3, 0.3, generator=generator)
        for name, shape in shapes.items()
    }
    return {"pos_embed": positions_by_hand(width), **weights}


def by_hand(weights: dict[str, torch.Tensor], ecg: torch.Tensor, heads: int) -> torch.Tensor:
    """ECG-JEPA's patches of one ECG (8 x 2500), head by head, from the published names."""
    x = ecg.reshape(400, 50) @ weights["W_P.weight"].T + weights["W_P.bias"]
    width = x.shape[1]
    allowed = torch.zeros(400, 400, dtype=torch.bool)
    for lead in range(8):
        for time in range(50):
            row = 50 * lead + time
            allowed[row, 50 * lead : 50 * lead + 50] = True
            allowed[row, time::50] = True

    def norm(name: str, y: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(
            y, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"]
        )

    depth = sum(name.endswith("qkv.weight") for name in weights)
    for index in range(depth):
        block = f"encoder_blocks.blocks.{index}"
        x = x + weights["pos_embed"]
        query, key, value = (
            norm(f"{block}.norm1", x) @ weights[f"{block}.attn.qkv.weight"].T
        ).split(width, dim=1)
        mixed = []
        for q, k, v in zip(
            *(part.chunk(heads, dim=1) for part in (query, key, value)), strict=True
        ):
            scores = (q @ k.T / math.sqrt(width // heads)).masked_fill(~allowed, -math.inf)
            mixed.append(scores.softmax(dim=1) @ v)
        out = torch.cat(mixed, dim=1) @ weights[f"{block}.attn.proj.weight"].T
        x = x + out + weights[f"{block}.attn.proj.bias"]
        hidden = norm(f"{block}.norm2", x) @ weights[f"{block}.mlp.fc1.weight"].T
        hidden = functional.gelu(hidden + weights[f"{block}.mlp.fc1.bias"])
        x = x + hidden @ weights[f"{block}.mlp.fc2.weight"].T + weights[f"{block}.mlp.fc2.bias"]
    return norm("norm", x)


def test_every_published_weight_lands_at_its_size(tmp_path: Path) -> None:
    weights = published(width=768, depth=12)
    assert len(weights) == 1 + 2 + 12 * 11 + 2
    torch.save({"encoder": weights, "epoch": 100}, tmp_path / "epoch100.pth")
    with torch.device("meta"):  # drawing weights to be overwritten would take longer than the test
        encoder = EcgEncoder(EcgConfig())
    encoder.to_empty(device="cpu").fill_buffers()
    load_ecg_jepa(encoder, tmp_path / "epoch100.pth")
    landed = {published_name(name): tensor for name, tensor in encoder.state_dict().items()}
    assert torch.allclose(encoder.positions, weights.pop("pos_embed"), atol=1e-6)
    assert set(landed) == set(weights)
    assert all(torch.equal(landed[name], weights[name]) for name in weights)


def test_the_numbers_are_ecg_jepas(tmp_path: Path) -> None:
    weights, values = published(width=32, depth=3), ecgs(2)
    torch.save({"encoder": weights, "epoch": 1}, tmp_path / "weights.pth")
    save_file(weights, tmp_path / "weights.safetensors")
    expected = by_hand(weights, values[1], heads=4)
    for name in ("weights.pth", "weights.safetensors"):
        encoder = encoder_of()
        load_ecg_jepa(encoder, tmp_path / name)
        with torch.no_grad():
            features, known = encoder.encode(values)
        assert known.all()
        assert torch.allclose(features[1].flatten(0, 1), expected, atol=1e-4)


def drop(weights: dict[str, torch.Tensor]) -> None:
    del weights["encoder_blocks.blocks.1.attn.qkv.weight"]


def add(weights: dict[str, torch.Tensor]) -> None:
    weights["encoder_blocks.blocks.0.attn.qkv.bias"] = torch.zeros(96)


def deepen(weights: dict[str, torch.Tensor]) -> None:
    weights |= published(32, 4)


def reshape(weights: dict[str, torch.Tensor]) -> None:
    weights["W_P.weight"] = torch.zeros(32, 75)


def learn_positions(weights: dict[str, torch.Tensor]) -> None:
    weights["pos_embed"] = weights["pos_embed"] + 0.01


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, r"1 missing, first encoder_blocks.blocks.1.attn.qkv.weight\)"),
        (add, r"1 unexpected, first encoder_blocks.blocks.0.attn.qkv.bias\)"),
        (deepen, "11 unexpected, first encoder_blocks.blocks.3"),
        (reshape, r"first W_P.weight is \(32, 75\) and not \(32, 50\)"),
        (learn_positions, "'pos_embed' .* not the fixed"),
        (dict.clear, "missing, first W_P.weight"),
    ],
)
def test_other_weights_are_refused_and_change_nothing(
    tmp_path: Path, damage: Any, message: str
) -> None:
    weights, encoder = published(width=32, depth=3), encoder_of()
    damage(weights)
    torch.save({"encoder": weights}, tmp_path / "w.pth")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(EcgWeightsError, match=message):
        load_ecg_jepa(encoder, tmp_path / "w.pth")
    assert all(torch.equal(before[name], now) for name, now in encoder.state_dict().items())


@pytest.mark.parametrize("name", ["none.pth", "torn.pth", "torn.safetensors", "code.pth"])
def test_missing_damaged_and_executable_files_are_refused(tmp_path: Path, name: str) -> None:
    for suffix in ("pth", "safetensors"):
        (tmp_path / f"torn.{suffix}").write_bytes(b"PK\x03\x04 torn")
    torch.save({"encoder": Path("any object")}, tmp_path / "code.pth")
    with pytest.raises(EcgWeightsError, match=f"{name} cannot be read as ECG-JEPA weights"):
        load_ecg_jepa(encoder_of(), tmp_path / name)


def test_the_tokens_are_the_leads_the_times_or_the_mean() -> None:
    values, encoder = ecgs(2), encoder_of()
    with torch.no_grad():
        features, _ = encoder.encode(values)
        for tokens, expected in (
            (8, features.mean(dim=2)),
            (50, features.mean(dim=1)),
            (1, features.mean(dim=(1, 2))[:, None]),
        ):
            encoder.config.out_tokens = tokens
            assert torch.allclose(encoder(values), expected, atol=1e-6)
            projected = EcgProjector(encoder.config, 24)(encoder(values))
            assert projected.shape == (2, tokens, 24)


@pytest.mark.parametrize("tokens", [0, 5, 7, 400])
def test_other_counts_of_tokens_are_refused(tokens: int) -> None:
    with pytest.raises(ValueError, match=f"cannot have {tokens} tokens: .* 1 .* 8 .* 50 "):
        EcgConfig(out_tokens=tokens)


@pytest.mark.parametrize("tokens", [1, 8, 50])
def test_padding_reaches_no_token(tokens: int) -> None:
    short, encoder = ecgs(3, seconds=4.1), encoder_of(out_tokens=tokens)
    cropped = encoder_of(samples=1050, out_tokens=21 if tokens == 50 else tokens)
    with torch.no_grad():
        found, expected = encoder(short), cropped(short[:, :, :1050])
        assert torch.allclose(found[:, : expected.shape[1]], expected, atol=1e-5)
        assert not found[:, expected.shape[1] :].any()
        features, known = encoder.encode(short)
    assert known.sum(dim=1).tolist() == [21] * 3  # 20 whole patches and one half filled
    assert features.isfinite().all()


def test_a_short_ecg_does_not_change_its_neighbours() -> None:
    long, short, encoder = ecgs(2), ecgs(1, seconds=3), encoder_of()
    with torch.no_grad():
        together = encoder(torch.cat([long[:1], short, long[1:]]))
        assert torch.allclose(together[[0, 2]], encoder(long), atol=1e-6)
        assert torch.allclose(together[1:2], encoder(short), atol=1e-6)


def test_a_batch_of_32_is_one_call() -> None:
    values, encoder = ecgs(32), encoder_of()
    calls: list[tuple[int, ...]] = []
    encoder.blocks[0].register_forward_hook(lambda _, inputs, out: calls.append(out.shape))
    with torch.no_grad():
        together = encoder(values)
        one = encoder(values[7:8])
    assert calls == [(32, 400, 32), (1, 400, 32)]
    assert torch.allclose(together[7:8], one, atol=1e-6)


def test_blank_input_gives_numbers_and_gradients() -> None:
    encoder = encoder_of()
    encoder(torch.zeros(1, 8, 2500)).square().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in encoder.parameters())
