"""Networks in ONNX files, run by onnxruntime on the CPU.

An ONNX file is a graph of standard operators and numbers: nothing in it is executed as code. What could
reach beyond the file (tensors stored in other files, operators from other libraries) and what would not be a
fixed function of one input (random operators, layers in training mode, a fixed batch size) is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certify.errors import InvalidModel, InvalidSetting, MissingExtra
from certify.files.safe import open_regular, unreadable, untrusted

KIND = "ONNX model"
#: The largest file of the format itself (a protocol buffer).
MAX_BYTES = 2**31
_RANDOM = {
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial",
}  # fmt: skip
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_EXPORT = "torch.onnx.export(model, (x,), path, dynamic_shapes=({0: 'batch'},), external_data=False)"


class OnnxModel(nn.Module):
    """The network of an ONNX file as a function from (batch, *shape) float32 to class scores.

    ``file_digest`` is the SHA-256 of the file: its identity in every run. There are no weights in torch's
    sense and no gradients; ``onnx2torch.convert`` makes a torch module where they are needed.
    """

    certify_header = None

    def __init__(self, content: bytes, source: str = "the ONNX model") -> None:
        super().__init__()
        self.source = source
        self.content = content
        self.file_digest = hashlib.sha256(content).hexdigest()
        self.session = _session(content, source)
        try:
            self.input_name = _only_input(self.session, source)
            self.output_name = _only_output(self.session, source)
        except UnicodeDecodeError as error:
            raise unreadable(Path(source), KIND, "the name of an input or output is no text") from error
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (batch, classes) of float32 inputs on the CPU, without a graph."""
        if x.dtype != torch.float32 or x.device.type != "cpu":
            raise InvalidSetting(
                f"an ONNX model cannot take {x.dtype} inputs on {x.device.type}",
                why="its types are fixed in the file, and it runs on the CPU in single precision here",
                remedy="use dtype fp32 and device cpu, or convert it: onnx2torch.convert(path)",
            )
        try:
            (found,) = self.session.run([self.output_name], {self.input_name: _array(x)})
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            raise InvalidModel(
                f"{self.source} cannot evaluate inputs of shape {tuple(x.shape[1:])}",
                why=_first_line(error),
                remedy=f"give data of the shape it was exported for: {self.session.get_inputs()[0].shape}",
            ) from error
        return torch.from_numpy(np.asarray(found))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "session"}  # type: ignore[misc]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.session = _session(self.content, self.source)


def load_onnx(path: Path, device: torch.device | str = "cpu") -> OnnxModel:
    """The network of an ONNX file. Raises MissingExtra, UnreadableFile, UntrustedFile, InvalidModel."""
    if torch.device(device).type != "cpu":
        raise InvalidSetting(
            f"an ONNX model cannot run on {device}",
            why="onnxruntime is used on the CPU only, where its results are reproducible",
            remedy="use --device cpu, or convert it to torch: onnx2torch.convert(path)",
        )
    with open_regular(path, KIND) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise untrusted(path, f"it has more than {MAX_BYTES} bytes, which the format does not allow")
    try:
        judge(content, path)
    except ImportError as error:
        raise _missing(error) from error
    return OnnxModel(content, str(path))


def judge(content: bytes, path: Path) -> None:
    """Refuse a file that is no ONNX model, reaches beyond itself, or is no fixed function."""
    import onnx

    try:
        model = onnx.load_model_from_string(content)
        nodes, tensors = list(_messages(model, "NodeProto")), list(_messages(model, "TensorProto"))
    except Exception as error:  # whatever the parser raises on bytes that are something else
        raise unreadable(path, KIND, f"it cannot be parsed ({type(error).__name__})") from error
    if not model.graph.output:
        raise unreadable(path, KIND, "its graph has no output")
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise untrusted(
                path,
                f"its tensor {tensor.name!r} is stored in another file",
                "write one file: torch.onnx.export(..., external_data=False), or, if it is your own, "
                "onnx.save(onnx.load(path), 'whole.onnx', save_as_external_data=False)",
            )
    own = {(f.domain, f.name) for f in model.functions}
    for node in nodes:
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in own:
            raise untrusted(path, f"its operator {node.op_type} comes from another library ({node.domain})")
        if node.op_type in _RANDOM or _trains(node, model):
            raise InvalidModel(
                f"{path} is no fixed function of its input",
                why=f"its operator {node.op_type} "
                + ("draws random numbers" if node.op_type in _RANDOM else "is in training mode"),
                remedy="export it again from a model in eval mode (model.eval())",
            )


def _messages(message: Any, kind: str) -> Iterator[Any]:
    """All messages of one kind inside a protocol buffer, at any depth (graphs nest in attributes)."""
    todo = [message]
    while todo:
        current = todo.pop()
        if current.DESCRIPTOR.name == kind:
            yield current
        for field, value in current.ListFields():
            if field.message_type is not None:
                todo.extend([value] if hasattr(value, "ListFields") else value)


def _trains(node: Any, model: Any) -> bool:
    if node.op_type == "BatchNormalization":
        return any(a.name == "training_mode" and a.i for a in node.attribute)
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        from onnx import numpy_helper

        constants = {t.name: t for t in model.graph.initializer}
        for other in model.graph.node:
            if other.op_type == "Constant":
                name = other.output[0]
                constants.update((name, a.t) for a in other.attribute if a.name == "value")
        switch = constants.get(node.input[2])
        return switch is None or bool(numpy_helper.to_array(switch).any())
    return False


def _session(content: bytes, source: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing(error) from error
    options = onnxruntime.SessionOptions()
    # One thread adds in one order. Workers, not threads, are what makes a run faster.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # its errors are raised, and told in this toolkit's words
    try:
        return onnxruntime.InferenceSession(
            content,
            options,
            providers=["CPUExecutionProvider"],
            # Folding would compute, while the file is opened, whatever tensors its operators describe.
            disabled_optimizers=["ConstantFolding"],
        )
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise unreadable(Path(source), KIND, f"onnxruntime refuses it ({_first_line(error)})") from error


def _only_input(session: Any, source: str) -> str:
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        found = ", ".join(f"{i.name}: {i.type}" for i in inputs) or "none"
        raise InvalidModel(
            f"{source} does not take one float32 tensor",
            why=f"its inputs are {found}",
            remedy="export a network with one float32 input (batch, *shape)",
        )
    batch = inputs[0].shape[0] if inputs[0].shape else None
    if isinstance(batch, int):
        raise InvalidModel(
            f"{source} takes batches of {batch} only",
            why=f"its input {inputs[0].name!r} has the fixed shape {inputs[0].shape}",
            remedy=f"export it with a batch of any size: {_EXPORT}",
        )
    return inputs[0].name


def _only_output(session: Any, source: str) -> str:
    outputs = session.get_outputs()
    real = ("tensor(float)", "tensor(double)")
    scores = [o for o in outputs if o.type in real and len(o.shape or "??") > 1]
    if len(scores) != 1:
        found = ", ".join(f"{o.name}: {o.type} {o.shape}" for o in outputs)
        raise InvalidModel(
            f"{source} does not have one output with class scores",
            why=f"its outputs are {found}",
            remedy="keep the logits: onnx.utils.extract_model(path, 'logits.onnx', ['input'], ['logits']) "
            "(scikit-learn models: options={'zipmap': False})",
        )
    return scores[0].name


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _array(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.detach().numpy())


def _missing(error: ImportError) -> MissingExtra:
    return MissingExtra(
        "ONNX models cannot be read here",
        why=f"the package {error.name or 'onnx'!r} is not installed",
        remedy="pip install 'certify-robustness[onnx]'",
    )
