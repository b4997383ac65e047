"""Every engine answers as the torch network does: each precision, each batch size, each output, each kind of network."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ramps import fill_with_ramps

from foldertune.engines import Engine, make_engine, open_engine, refuse_impossible
from foldertune.engines.form import Form, Output, form_of
from foldertune.engines.graph import onnx_graph
from foldertune.engines.openvino import OpenVinoEngine
from foldertune.engines.quantize import quantize
from foldertune.engines.torch import exact
from foldertune.errors import MissingError, SettingsError
from foldertune.evaluation.choice import candidates, device_of
from foldertune.machine import cpu_has_bf16
from foldertune.models import build
from foldertune.models.network import Network
from foldertune.preprocess import Preprocess

SIDE = 64
SMALL = Preprocess(image_size=SIDE)
# Largest difference of a logit over the largest logit. bf16 keeps 8 bits of a number, so 2^-9 of each rounding in some 20 layers;
# fp16 keeps 11. int8 measured: 0.03.
TOLERANCE = {"float32": 1e-5, "bf16": 0.04, "fp16": 0.005, "int8": 0.06}


def pictures(num: int, *, side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(num).integers(0, 256, (num, side, side, 3)).astype(np.uint8)


def network(name: str) -> Network:
    made = build(name, num_classes=7)
    fill_with_ramps(made)
    return made.eval()


@pytest.fixture(scope="module")
def resnet() -> Network:
    return network("resnet18")


def reference(of: Network, preprocess: Preprocess, given: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """[logits, features, output of stage 2], computed step by step as the preprocessing is defined."""
    x = torch.from_numpy(given).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    with torch.inference_mode():
        below = of.run_stages((x - mean) / std, last=2)
        features = of.pool(of.run_stages(below, first=3))
        return [each.numpy() for each in (of.classify(features), features, below)]


def assert_close(found: NDArray[np.float32], expected: NDArray[np.float32], *, precision: str = "float32") -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= TOLERANCE[precision] * np.abs(expected).max()


def offered() -> list[tuple[str, str]]:
    """Every engine and precision of this machine; "compiled" has a slow test of its own."""
    return [(spec.engine, spec.precision) for spec in candidates(every=True) if spec.engine != "compiled"]


def test_offered_names_all_that_a_processor_computes_in() -> None:
    exact = {("openvino", "float32"), ("openvino", "int8"), ("onnxruntime", "float32"), ("onnxruntime", "int8")}
    lower = {("openvino", "bf16"), ("torch", "bf16")} if cpu_has_bf16() else set()
    assert {*exact, *lower, ("torch", "float32")} <= set(offered())


@pytest.mark.parametrize("num_pictures", [1, 2, 7, 16])
@pytest.mark.parametrize(("engine", "precision"), offered())
def test_engine_of_each_kind_and_batch_size_answers_as_the_network(
    resnet: Network, engine: str, precision: str, num_pictures: int
) -> None:
    made = _made(resnet, engine, precision)
    given = pictures(num_pictures)
    assert_close(made.run(given), reference(resnet, SMALL, given)[0], precision=precision)


@pytest.mark.parametrize(("engine", "precision"), offered())
def test_engine_of_each_kind_answers_in_a_last_batch_as_in_a_whole_one(
    resnet: Network, engine: str, precision: str
) -> None:
    made, given = _made(resnet, engine, precision), pictures(16)
    whole = made.run(given)
    for num_pictures in (1, 2, 7):
        last = given[-num_pictures:]
        assert_close(made.run(last), whole[-num_pictures:], precision=precision)


@pytest.mark.parametrize(("engine", "precision"), [pair for pair in offered() if pair[0] == "openvino"])
def test_engine_gives_a_picture_the_same_bits_at_every_place_and_beside_any_others(
    resnet: Network, engine: str, precision: str
) -> None:
    """What the cache of features relies on: they are kept by picture, whatever batch of this size they came from."""
    made, given = _made(resnet, engine, precision), pictures(16)
    whole = made.run(given)
    turned = np.random.default_rng(1).permutation(16)
    np.testing.assert_array_equal(made.run(given[turned]), whole[turned])
    filled = np.concatenate([given[:3], given[2:3].repeat(13, 0)])
    np.testing.assert_array_equal(made.run(filled)[:3], whole[:3])


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "vit_base"])
def test_engine_of_each_network_answers_as_the_network(name: str, engine: str) -> None:
    made = network(name)
    given = pictures(2)
    answers = make_engine(form_of(made, SMALL), engine=engine).run(given)
    assert_close(answers, reference(made, SMALL, given)[0])


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_engine_of_a_form_with_several_outputs_gives_them_in_the_order_asked(resnet: Network, engine: str) -> None:
    given, orders = pictures(3), [("activation", "features", "logits"), ("features", "logits"), ("activation",)]
    expected = dict(zip(("logits", "features", "activation"), reference(resnet, SMALL, given), strict=True))
    for outputs in orders:
        asked: tuple[Output, ...] = outputs  # type: ignore[assignment]
        found = make_engine(form_of(resnet, SMALL, outputs=asked, stage=2), engine=engine).run_all(given)
        assert len(found) == len(outputs)
        for values, name in zip(found, outputs, strict=True):
            assert_close(values, expected[name])


def test_engine_of_a_form_ignores_what_the_network_learns_later(resnet: Network) -> None:
    learning, given = network("resnet18"), pictures(2)
    for engine in ("openvino", "onnxruntime", "torch"):
        made = make_engine(form_of(learning, SMALL), engine=engine)
        with torch.no_grad():
            learning.get_parameter("fc.bias").add_(1)
        assert_close(made.run(given), reference(resnet, SMALL, given)[0])
        with torch.no_grad():
            learning.get_parameter("fc.bias").sub_(1)


def test_onnx_graph_of_every_network_is_one_that_onnx_accepts(resnet: Network) -> None:
    import onnx

    for name in ("resnet18", "resnet50", "vit_base"):
        graph = onnx_graph(form_of(network(name), SMALL))
        onnx.checker.check_model(graph, full_check=True)
        assert [each.name for each in graph.graph.output] == ["logits"]
        assert not [node for node in graph.graph.node if node.op_type == "BatchNormalization"]


def test_onnx_graph_folds_batch_norms_of_extreme_statistics() -> None:
    made = network("resnet18")
    with torch.no_grad():
        made.get_buffer("bn1.running_var")[:8] = 1e-9
        made.get_buffer("bn1.running_mean")[:8] = 1e-3
        made.get_buffer("layer1.0.bn1.running_var")[:8] = 1e6
    given = pictures(2)
    answers = make_engine(form_of(made, SMALL), engine="openvino").run(given)
    assert_close(answers, reference(made, SMALL, given)[0])


def test_engine_on_openvino_computes_in_what_was_asked(resnet: Network) -> None:
    """Left alone, OpenVINO takes bf16 on processors that have it."""
    for precision, expected in (("float32", "f32"), ("bf16", "bf16")):
        if precision == "float32" or cpu_has_bf16():
            made = _made(resnet, "openvino", precision)
            assert isinstance(made, OpenVinoEngine)
            assert made._compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == expected


@pytest.fixture
def allowed_tf32() -> Iterator[list[Any]]:
    """What of torch's settings lets float32 be less, each set so."""
    backends: Any = torch.backends
    kinds = [backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.matmul]
    before = [kind.fp32_precision for kind in kinds]
    for kind in kinds:
        kind.fp32_precision = "tf32"
    yield kinds
    for kind, precision in zip(kinds, before, strict=True):
        kind.fp32_precision = precision


def test_engine_on_torch_in_float32_is_not_tf32_and_leaves_what_was_set(allowed_tf32: list[Any]) -> None:
    """TF32, the default of convolutions on CUDA, keeps 10 bits."""
    from foldertune.engines.torch import TorchEngine

    kinds = allowed_tf32
    seen: dict[str, list[str]] = {}

    class Watched(torch.nn.Module):
        name = ""

        def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor]:
            seen[self.name] = [kind.fp32_precision for kind in kinds]
            if self.name == "broken":
                raise RuntimeError("out of memory")
            return (pictures.float(),)

    watched = Watched()
    for watched.name, precision in (("float32", "float32"), ("bf16", "bf16"), ("broken", "float32")):
        with pytest.raises(RuntimeError) if watched.name == "broken" else contextlib.nullcontext():
            TorchEngine(watched, precision=precision).run(pictures(1))
        assert [kind.fp32_precision for kind in kinds] == ["tf32"] * 3
    assert seen == {"float32": ["ieee"] * 3, "bf16": ["tf32"] * 3, "broken": ["ieee"] * 3}


def test_engine_on_torch_runs_inside_of_what_is_exact_already_and_beside_other_threads(
    resnet: Network, allowed_tf32: list[Any]
) -> None:
    engine, given = make_engine(form_of(resnet, SMALL), engine="torch"), pictures(1)
    expected, found = engine.run(given), list[NDArray[np.float32]]()

    def run(inside: bool) -> None:
        for _ in range(10):
            with exact() if inside else contextlib.nullcontext():
                found.append(engine.run(given))

    threads = [threading.Thread(target=run, args=(inside,), daemon=True) for inside in (True, False, True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert len(found) == 40
    assert all(np.array_equal(answer, expected) for answer in found)
    assert [kind.fp32_precision for kind in allowed_tf32] == ["tf32"] * len(allowed_tf32)


def test_engine_called_from_several_threads_mixes_no_answers(resnet: Network) -> None:
    batches = [pictures(number) for number in (1, 2, 3, 4)] * 4
    for engine in ("openvino", "onnxruntime", "torch"):
        made = _made(resnet, engine, "float32")
        alone = [made.run(batch) for batch in batches]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(made.run, batches))
        for found, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # compiling, torch calls what torch deprecates
@pytest.mark.parametrize("precision", [spec.precision for spec in candidates(every=True) if spec.engine == "compiled"])
def test_engine_compiled_answers_as_the_network(resnet: Network, precision: str) -> None:
    made = make_engine(form_of(resnet, SMALL), engine="compiled", precision=precision, device=device_of("compiled"))
    whole = made.run(pictures(16))
    assert_close(made.run(pictures(16)[-7:]), whole[-7:], precision=precision)
    for num_pictures in (1, 2, 7, 16):
        given = pictures(num_pictures)
        assert_close(made.run(given), reference(resnet, SMALL, given)[0], precision=precision)


# int8 is prepared


@pytest.fixture
def graph(resnet: Network, tmp_path: Path) -> Path:
    (tmp_path / "graph.onnx").write_bytes(onnx_graph(form_of(resnet, SMALL)).SerializeToString())
    return tmp_path / "graph.onnx"


def test_quantize_in_two_threads_shows_no_bars_and_takes_nothing_that_others_print(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done, told = threading.Event(), []

    def talk() -> None:
        while not done.wait(0.01):
            print("here")
            told.append("here")

    with ThreadPoolExecutor(3) as pool:
        talking = pool.submit(talk)
        try:
            works = [
                pool.submit(quantize, graph, tmp_path / name, pictures(4), engine=engine)
                for engine, name in (("openvino", "a.xml"), ("onnxruntime", "a.onnx"))
            ]
            for work in works:
                work.result()
        finally:
            done.set()
        talking.result()
    shown = capsys.readouterr()
    assert shown.out.split() == told
    assert shown.err == ""


def test_quantize_for_onnx_runtime_needs_no_openvino(graph: Path, tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "sys.modules['openvino'] = None\n"
        "from foldertune.engines.quantize import quantize\n"
        "graph = Path(sys.argv[1])\n"
        "quantize(graph, graph.with_name('int8.onnx'), np.zeros((2, 64, 64, 3), np.uint8), engine='onnxruntime')"
    )
    subprocess.run([sys.executable, "-c", program, str(graph)], check=True, capture_output=True)
    assert (tmp_path / "int8.onnx").is_file()


def test_quantize_without_nncf_says_how_to_get_it(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    for engine in ("openvino", "onnxruntime"):
        with pytest.raises(MissingError, match="Install it: pip install nncf; or take --precision float32"):
            quantize(graph, tmp_path / "int8", pictures(2), engine=engine)


# Refused


@pytest.mark.parametrize(
    ("engine", "precision", "sentence"),
    [
        (
            "tensorrt",
            "float32",
            "There is no engine 'tensorrt'. Accepted: auto, openvino, onnxruntime, torch, compiled.",
        ),
        ("openvino", "int4", "There is no precision 'int4'. Accepted: auto, float32, bf16, fp16, int8."),
        (
            "onnxruntime",
            "bf16",
            "The engine onnxruntime does not compute in bf16 on cpu. It offers float32, int8, on cpu.",
        ),
    ],
)
def test_refuse_impossible_names_what_is_accepted(engine: str, precision: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        refuse_impossible(engine, precision)
    assert str(refused.value) == sentence


def test_refuse_impossible_of_an_engine_that_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"pip install 'foldertune\[onnxruntime\]'; or leave --engine out"):
        refuse_impossible("onnxruntime", "float32")


def test_refuse_impossible_of_bf16_without_the_instructions_names_what_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foldertune.engines.cpu_has_bf16", lambda: False)
    with pytest.raises(MissingError, match="Take --precision float32 or int8"):
        refuse_impossible("openvino", "bf16")


_ENGINES: dict[tuple[str, str], Engine] = {}


def _made(of: Network, engine: str, precision: str) -> Engine:
    """One engine of each kind for the whole module."""
    if (engine, precision) not in _ENGINES:
        make = _calibrated if precision == "int8" else make_engine
        _ENGINES[engine, precision] = make(
            form_of(of, SMALL), engine=engine, precision=precision, device=device_of(engine)
        )
    return _ENGINES[engine, precision]


def _calibrated(form: Form, *, engine: str, precision: str, device: str) -> Engine:
    """Through a file, as int8 is used. OpenVINO reads its weights when it compiles; nothing of it stays open."""
    assert device == "cpu"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        graph = Path(place) / "graph.onnx"
        graph.write_bytes(onnx_graph(form).SerializeToString())
        target = Path(place) / ("int8.xml" if engine == "openvino" else "int8.onnx")
        quantize(graph, target, pictures(24), engine=engine)
        return open_engine(target, engine=engine, precision=precision)
