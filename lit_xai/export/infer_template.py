"""Predict with an exported network: needs numpy, onnxruntime or openvino, and the other files of this folder.

    python infer.py                    checks that this machine computes what the exporting machine did
    python infer.py image.npy ...      predicts from arrays, each of one sample or of several
    python infer.py photo.png ...      predicts from pictures, where the network takes these and Pillow is installed
    python infer.py inputs.npz         predicts from arrays by name, where the network takes several inputs
    python infer.py --model FILE ...   uses another of the files
    python infer.py --runtime NAME ... runs it in onnxruntime or openvino; by default in the first that is installed
    python infer.py --precision bf16   computes floats in bfloat16, in openvino on a CPU that has it; by default in f32

Arrays of bytes and pictures are divided by 255 (pictures of 16 bits by 65535), and refused where the network was not
trained with that; then they are normalized with the mean and standard deviation of the training data, if it was trained
that way. What cannot be read as the network was trained to see it is refused: pictures that are transparent, animated
or in numbers whose white is unknown, and values far from those in training. From Python:
``predict(load(), {"input": array})``.
"""

import base64
import difflib
import hashlib
import importlib.util
import io
import os
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

try:
    import numpy as np
except ImportError as error:
    raise SystemExit(f"infer.py needs numpy, and onnxruntime or openvino ({error}): pip install numpy") from None

SETTINGS: dict[str, Any] = {}

SAMPLE = ""  # one sample before preprocessing, and each file's output for it; a large one is in sample.npz instead

FOLDER = Path(__file__).resolve().parent

OPTIONS = {"--model": "the name of a file", "--runtime": "the name of a runtime", "--precision": "f32 or bf16"}

RUNTIMES = ("onnxruntime", "openvino")  # the first that is installed runs the network, unless one is named

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of pictures, by the number of channels

# Formats that Pillow decodes by itself: for others it starts programs, such as Ghostscript.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")

EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # modes whose white is 255

BF16_TOLERANCE = 0.05  # of the largest output: its numbers have 8 bits

LARGEST_PICTURE = 100_000_000  # pixels

LARGEST_ARCHIVE = 4_000_000_000  # bytes, unpacked

# From release 1.32 on, ONNX Runtime contacts a host of its makers unless this is set before it is imported: here, so
# that it holds for scripts that import this one.
TOO_LATE = "onnxruntime" in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load(model: str | Path | None = None, runtime: str | None = None, precision: str = "f32", threads: int = 0) -> Any:
    """Open a network; by default the int8 one, if there is one, on as many threads as the runtime decides."""
    path = FOLDER / (model or SETTINGS["model"])
    content = read_own(path)
    chosen = find_runtime(runtime)
    if precision not in ("f32", "bf16") or (precision != "f32" and chosen != "openvino"):
        raise SystemExit(f"--precision expected f32, or bf16 with --runtime openvino, but got {precision}.")
    opened = open_in_openvino if chosen == "openvino" else open_in_onnxruntime
    try:
        return opened(content, precision, threads)
    except Exception as error:
        raise SystemExit(f"{path} is no ONNX file that can be read: {_line(error)}.") from None


def find_runtime(name: str | None = None) -> str:
    """Return the runtime of this name, or the first that is installed."""
    if name is not None and name not in RUNTIMES:
        near = difflib.get_close_matches(name, RUNTIMES, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise SystemExit(f"--runtime expected {' or '.join(RUNTIMES)}, but got {name}.{meant}")
    installed = [one for one in RUNTIMES if importlib.util.find_spec(one) is not None]
    if name is not None and name not in installed:
        raise SystemExit(f"--runtime {name} needs {name}, which is not installed: pip install {name}")
    if not installed:
        raise SystemExit(f"infer.py needs {' or '.join(RUNTIMES)}: pip install {RUNTIMES[0]}")
    return name or installed[0]


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry switched off."""
    if TOO_LATE:
        print("onnxruntime was imported before infer.py could switch off its telemetry.", file=sys.stderr)
    import onnxruntime

    return onnxruntime


def open_in_onnxruntime(content: bytes, precision: str = "f32", threads: int = 0) -> Any:
    """Open an ONNX file's content in ONNX Runtime."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it prints each error that it also raises
    options.intra_op_num_threads = threads  # 0: as it decides
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class OpenVinoSession:
    """A network in OpenVINO, called as ONNX Runtime's sessions are."""

    def __init__(self, compiled: Any) -> None:
        self.compiled, self._request = compiled, compiled.create_infer_request()

    def run(self, names: None, arrays: dict[str, Any]) -> list[Any]:
        """Return the outputs."""
        results = self._request.infer(arrays)
        return [np.array(results[place]) for place in range(len(self.compiled.outputs))]


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry."""
    # OpenVINO's import starts a process that contacts an analytics host, unless this package cannot be imported.
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # documented: an import then fails
    elif sys.modules.get("openvino_telemetry") is not None:
        print("openvino was imported before infer.py could switch off its telemetry.", file=sys.stderr)
    import openvino
    import openvino.frontend

    return openvino


def open_in_openvino(content: bytes, precision: str = "f32", threads: int = 0) -> OpenVinoSession:
    """Open an ONNX file's content in OpenVINO, in the precision that is asked for."""
    openvino = import_openvino()
    # As ONNX: asked for any format, OpenVINO prints the errors of every reader.
    reader = openvino.frontend.FrontEndManager().load_by_framework("onnx")
    model = reader.convert(reader.load(io.BytesIO(content)))
    # On CPUs with bfloat16 that would be its default.
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    settings |= {"INFERENCE_NUM_THREADS": str(threads)} if threads else {}
    return OpenVinoSession(openvino.Core().compile_model(model, "CPU", settings))


def read_own(path: Path) -> bytes:
    """Return the content of one of the export's files, the very one that it had."""
    if not path.is_file():
        raise SystemExit(f"There is no file {path}: keep infer.py in the folder of the network.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SystemExit(f"{path} cannot be read: {error.strerror}.") from None
    expected = SETTINGS.get("sha256", {}).get(path.name)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise SystemExit(
            f"{path} is not the file that was exported with this infer.py: it is damaged, was changed, or is of another"
            " export. Copy the whole folder again; a network of your own needs a name of its own, for --model."
        )
    return content


def preprocess(array: Any, name: str, settings: dict[str, Any] | None = None) -> Any:
    """Return an input as the network takes it: with a dimension of samples, channels first, normalized."""
    settings = settings or SETTINGS
    shape, dtype = settings["inputs"][name]["shape"], np.dtype(settings["inputs"][name]["dtype"])
    array = np.asarray(array)
    array = as_it_is(array, shape, name) if name in settings["whole"] else with_samples(array, shape, name)
    if array.dtype.kind not in "biuf":
        raise SystemExit(f"{name} expected numbers of {dtype}, but got an array of {array.dtype}.")
    if not np.isfinite(array).all():
        raise SystemExit(f"{name} expected finite numbers, but got NaN or infinity in {_count(~np.isfinite(array))}.")
    if not np.issubdtype(dtype, np.floating):
        with np.errstate(invalid="ignore"):
            whole = array.astype(dtype)
        if not np.array_equal(whole, array):
            raise SystemExit(f"{name} expected whole numbers that {dtype} can hold, but got others of {array.dtype}.")
        return np.ascontiguousarray(whole)
    if array.dtype == np.uint8:
        refuse_bytes(name, settings)
    with np.errstate(over="ignore"):  # refused below
        array = array.astype(np.float32) / np.float32(255 if array.dtype == np.uint8 else 1)
    if not np.isfinite(array).all():
        raise SystemExit(f"{name} expected numbers that float32 can hold, but got larger ones.")
    if name == settings["normalized"]:
        per_channel = (1, -1) + (1,) * (array.ndim - 2)
        mean, std = (np.asarray(settings[key], np.float32).reshape(per_channel) for key in ("mean", "std"))
        array = (array - mean) / std
    check_range(array, name, settings)
    return np.ascontiguousarray(array, dtype)


def refuse_bytes(name: str, settings: dict[str, Any]) -> None:
    """Refuse bytes where it is unknown how they become the numbers of the training."""
    if name in settings["not_of_bytes"]:
        raise SystemExit(
            f"{name} expected numbers as in training, {settings['not_of_bytes'][name]}, but got bytes, and how these"
            " become such numbers is unknown: give them in float, or export again with mean and std."
        )


def check_range(array: Any, name: str, settings: dict[str, Any]) -> None:
    """Refuse images whose values are far outside those in training, and tell of other inputs that are."""
    low, high = settings.get("ranges", {}).get(name, (0.0, 0.0))
    least, most, span = float(array.min()), float(array.max()), high - low
    if not span > 0 or (low - span <= least and most <= high + span):
        return
    sentence = (
        f"{name} expected numbers as in training, {low:.3g} to {high:.3g} where the network takes them, but got"
        f" {least:.3g} to {most:.3g}"
    )
    if len(settings["inputs"][name]["shape"]) == 3 and name not in settings["whole"]:
        raise SystemExit(f"{sentence}: give them as they were before normalization, such as from 0 to 1.")
    print(f"{sentence}.", file=sys.stderr)  # a table may have rows that are


def with_samples(array: Any, shape: list[int], name: str) -> Any:
    """Return an array whose first dimension counts samples; ``shape`` is that of one of them."""
    channels_last = (*shape[1:], shape[0]) if len(shape) > 1 else None
    for expected in (tuple(shape), channels_last, tuple(shape[1:]) if shape[:1] == [1] else None):
        if expected is None:
            continue
        rows = array[None] if array.shape == expected else array
        if rows.shape[1:] != expected or rows.ndim != len(expected) + 1 or not len(rows):
            continue
        if len(expected) < len(shape):
            return rows[:, None]
        return rows if expected == tuple(shape) else np.moveaxis(rows, -1, 1)
    if array.ndim == len(shape) + 1 and array.size:  # the network may take other sizes too
        return array
    raise SystemExit(f"{name} expected one or more samples of shape {shape}, but got an array of {[*array.shape]}.")


def as_it_is(array: Any, shape: list[int | None], name: str) -> Any:
    """Return an array without a dimension of samples; ``None`` in the shape stands for any size."""
    if array.ndim != len(shape) or any(size not in (None, got) for size, got in zip(shape, array.shape, strict=False)):
        wanted = str([*shape]).replace("None", "*")
        raise SystemExit(f"{name} expected the shape {wanted}, but got an array of {[*array.shape]}.")
    return array


def predict(session: Any, arrays: dict[str, Any]) -> Any:
    """Return the network's outputs for arrays by the names of the inputs."""
    missing = [name for name in SETTINGS["inputs"] if name not in arrays]
    if missing:
        raise SystemExit(
            f"The network takes inputs {[*SETTINGS['inputs']]}, but {missing} were not given, only {[*arrays]}."
        )
    ready = {name: preprocess(arrays[name], name) for name in SETTINGS["inputs"]}
    try:
        return session.run(None, ready)[0]
    except Exception as error:  # the runtimes' own exceptions share no base class
        given = ", ".join(f"{n} of {[*a.shape[n not in SETTINGS['whole'] :]]}" for n, a in ready.items())
        wanted = ", ".join(f"{name} of {SETTINGS['inputs'][name]['shape']}" for name in ready)
        raise SystemExit(f"The network expected samples with {wanted}, but got {given}: {_line(error)}.") from None


def describe(outputs: Any) -> str:
    """Return the outputs for one sample in words, on one line."""
    if not SETTINGS["classification"] or outputs.ndim != 1:
        return " ".join(f"{value:.6g}" for value in outputs.ravel()[:20])
    # A softmax; less the maximum, so that exp() cannot overflow.
    shares = np.exp(outputs - outputs.max())
    shares = shares / shares.sum()
    names = SETTINGS["classes"] or range(len(outputs))
    return ", ".join(f"{names[i]} {shares[i]:.3f}" for i in np.argsort(-shares)[:3])


def read(path: str) -> dict[str, Any]:
    """Return a file's arrays by the names of the inputs."""
    if not Path(path).is_file():
        raise SystemExit(f"There is no file {path}.")
    try:
        with open(path, "rb") as file:
            begins = file.read(6)
        if begins[:4] == b"PK\x03\x04":
            return read_archive(path)
        first = next(iter(SETTINGS["inputs"]))
        return {first: np.load(path, allow_pickle=False) if begins == b"\x93NUMPY" else picture(path)}
    except Exception as error:  # a damaged archive raises exceptions of many types
        pickled = "allow_pickle" in str(error)
        why = "it holds Python objects, not numbers" if pickled else f"it cannot be read: {_line(error)}"
        raise SystemExit(f"{path} expected a .npy or .npz file of numbers, but {why}.") from None


def read_archive(file: Any) -> dict[str, Any]:
    """Return the arrays of a .npz file by name, each byte of them compared with its checksum."""
    with zipfile.ZipFile(file) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST_ARCHIVE:
            raise ValueError(f"it holds more than {LARGEST_ARCHIVE:,} bytes")
        contents = {name.removesuffix(".npy"): io.BytesIO(archive.read(name)) for name in archive.namelist()}
    return {name: np.load(content, allow_pickle=False) for name, content in contents.items()}


def picture(path: str) -> Any:
    """Return a picture's bytes, ``(height, width, channels)`` of the size that the network was trained with."""
    shapes = [entry["shape"] for entry in SETTINGS["inputs"].values()]
    if len(shapes) > 1 or SETTINGS["whole"] or len(shapes[0]) != 3 or shapes[0][0] not in MODES:
        raise SystemExit(f"{path} expected a .npy or .npz file of numbers, which it is not.")
    channels, height, width = shapes[0]
    refuse_bytes(next(iter(SETTINGS["inputs"])), SETTINGS)
    try:
        from PIL import Image
    except ImportError:
        raise SystemExit(
            f"{path} expected a .npy or .npz file of numbers, which it is not: for pictures, pip install pillow."
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is refused here
            image = upright(path)
            if image.mode in EIGHT_BITS:
                image, scale = without_alpha(path, image, channels), None
            else:
                image, scale = in_float(path, image), np.float32(1)
    except OSError:  # of other kinds of files
        raise SystemExit(f"{path} expected a .npy or .npz file, or a picture, but it cannot be read as one.") from None
    except Exception as error:  # a damaged picture raises exceptions of many types
        raise SystemExit(f"{path} expected a picture, but it cannot be read: {_line(error)}.") from None
    if image.size != (width, height):
        print(f"{path}: resized from {image.width}x{image.height} to {width}x{height}", file=sys.stderr)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if scale is None:
        return np.asarray(image).reshape(height, width, channels)
    grey = np.asarray(image, np.float32)[..., None]
    return np.concatenate([grey] * min(channels, 3) + [np.ones_like(grey)] * (channels == 4), -1)


def upright(path: str) -> Any:
    """Return an opened picture, turned as its EXIF data say."""
    from PIL import Image, ImageOps

    Image.init()
    with open(path, "rb") as file:
        try:
            image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
        except Image.DecompressionBombError:
            image = None
        if image is None or image.width * image.height > LARGEST_PICTURE:
            raise SystemExit(f"{path} expected a picture of at most {LARGEST_PICTURE:,} pixels, but it is larger.")
        frames, kind = getattr(image, "n_frames", 1), image.format
        if kind != "MPO" and frames > 1:  # the second one in the JPEG file of a phone is a preview
            raise SystemExit(
                f"{path} expected one picture, but it holds {frames}: save the one that is meant in a file of its own."
            )
        image.load()
        if image.getexif().get(0x0112, 1) != 1:  # the orientation
            print(f"{path}: turned upright, as its EXIF data say", file=sys.stderr)
        turned = ImageOps.exif_transpose(image)
        turned.format = kind
        return turned


def without_alpha(path: str, image: Any, channels: int) -> Any:
    """Return a picture of 8 bits in the network's channels; what shows through it is unknown, so nothing may."""
    if channels != 4 and (image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info):
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            raise SystemExit(
                f"{path} expected a picture without transparent pixels, but it has some: put it on the background that"
                " the pictures in training had."
            )
    return image.convert(MODES[channels])


def in_float(path: str, image: Any) -> Any:
    """Return a grey picture of 16 bits in numbers from 0 to 1, in a format that says what white is."""
    from PIL import Image

    if image.format not in ("PNG", "PPM") or not image.mode.startswith("I") or "transparency" in image.info:
        raise SystemExit(
            f"{path} expected a picture whose white is known, but {image.format} in mode {image.mode} may hold any"
            " numbers: save it with 8 bits per channel, or give an array of numbers as in training."
        )
    return Image.fromarray(np.asarray(image).astype(np.float32) / np.float32(65535))


def sample() -> dict[str, Any]:
    """Return one sample's inputs by name, and under ``expected/FILE`` the output of each file for it."""
    return read_archive(io.BytesIO(base64.b64decode(SAMPLE) if SAMPLE else read_own(FOLDER / "sample.npz")))


def check(session: Any, model: str | Path | None = None, precision: str = "f32") -> bool:
    """Compare a network's output for the sample with its file's output when it was exported."""
    name = Path(model or SETTINGS["model"]).name
    if name not in SETTINGS["tolerances"]:
        known = " and ".join(SETTINGS["tolerances"])
        raise SystemExit(f"infer.py can check {known}, but has no output to compare {name} with.")
    arrays, tolerance = sample(), SETTINGS["tolerances"][name]
    tolerance = max(tolerance, BF16_TOLERANCE) if precision == "bf16" else tolerance
    expected = arrays[f"expected/{name}"]
    got = predict(session, arrays)
    difference = float("inf")
    if got.shape == expected.shape:
        difference = float(np.abs(got - expected).max() / (np.abs(expected).max() or 1.0))
    passed = difference <= tolerance
    print(f"{name}, with one sample from the export")
    print(f"expected  {describe(expected[0])}")
    print(f"got       {describe(got[0])}")
    print(f"{'ok' if passed else 'WRONG'}: differs by {difference:.2g} of the largest output, up to {tolerance:g}")
    return passed


def _count(which: Any) -> str:
    return f"{int(which.sum())} of {which.size}"


def _line(error: BaseException) -> str:
    # OpenVINO begins with the places in its own code.
    text = re.sub(r"^.*\.(?:cpp|hpp|h):\d+:", "", str(error), flags=re.DOTALL)
    return " ".join(text.split())[:200].rstrip(".!") or type(error).__name__


def main(arguments: list[str]) -> int:
    """Check, or predict for each file."""
    if {"-h", "--help"} & {*arguments}:
        print(__doc__)
        return 0
    options: dict[str, Any] = {}
    while arguments and arguments[0] in OPTIONS:
        if len(arguments) < 2:
            raise SystemExit(f"{arguments[0]} expected {OPTIONS[arguments[0]]}.")
        options[arguments[0].removeprefix("--")], arguments = arguments[1], arguments[2:]
    model = None
    if "model" in options:
        named = options.pop("model")
        model = next((path for path in (Path(named).resolve(), FOLDER / named) if path.is_file()), None)
        if model is None:
            raise SystemExit(f"--model expected an ONNX file, but there is no file {named}.")
    session = load(model, **options)
    if not arguments:
        return 0 if check(session, model, options.get("precision", "f32")) else 1
    for path in arguments:
        for outputs in predict(session, read(path)):
            print(f"{path}: {describe(outputs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
