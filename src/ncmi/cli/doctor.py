"""What is installed, and what works here. Runs without any package but torch, or where even that is missing."""

import os
import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ncmi.errors import printable

_NEEDED = ("torch", "lightning_fabric", "msgspec", "numpy", "pandas", "safetensors", "scipy", "sklearn", "tyro")
_OPTIONAL = {
    "tensorboard": "TensorBoard logs (--training.logger tensorboard)",
    "torchvision": "torchvision's networks and transforms",
    "timm": "timm's networks",
    "h5py": "ncmi slides: features files; pip install 'ncmi[slides]'",
    "openslide": "ncmi slides tile, embed; pip install 'ncmi[slides]'",
    "skimage": "ncmi slides tile, embed; pip install 'ncmi[slides]'",
    "torchstain": "ncmi slides embed --stain; pip install 'ncmi[stain]'",
    "zarr": "features in Zarr stores (LazySlide); pip install 'ncmi[zarr]'",
    "onnx": "ncmi export --to onnx; pip install 'ncmi[export]'",
    "onnxscript": "ncmi export --to onnx; pip install 'ncmi[export]'",
    "onnxruntime": "ncmi export --to onnx, ncmi slides embed --encoder onnx:FILE; pip install 'ncmi[export]'",
}
_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "lightning_fabric": "lightning-fabric",
    "openslide": "openslide-python",
    "skimage": "scikit-image",
}

Finding = tuple[bool | None, str, str]


def examine() -> list[Finding]:
    """(works, name, detail) for each thing looked at; ``None`` for something optional that is absent."""
    findings: list[Finding] = [(True, "python", platform.python_version())]
    findings += [_package(name, needed=True) for name in _NEEDED]
    works = {name: there for there, name, _ in findings}
    if works["torch"]:  # the loss needs nothing else
        findings += [_devices(), _loss()]
    if all(works.values()):
        findings += [_arithmetic(), *_data()]
    return findings + [_package(name, needed=False) for name in _OPTIONAL]


def tell() -> None:
    """Print what :func:`examine` finds, a line each.

    Raises:
        ValueError: if something that is needed does not work.
    """
    findings = examine()
    marks = {True: "✓", False: "✗", None: "–"}
    for works, name, detail in findings:
        print(printable(f"{marks[works]} {name:<24} {detail}"), flush=True)
    if any(works is False for works, _, _ in findings):
        raise ValueError("something that ncmi needs does not work: see the lines marked ✗")


def _package(name: str, *, needed: bool) -> Finding:
    distribution = _DISTRIBUTIONS.get(name, name)
    try:
        import_module(name)
        return True, name, version(distribution)
    except PackageNotFoundError:
        return True, name, "imports"
    except Exception as error:  # whatever a broken wheel raises, it is what the user must be told
        cure = "pip install 'ncmi[app]'" if needed else f"optional: {_OPTIONAL[name]}"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return (False if needed else None), name, f"does not import ({reason}); {cure}"


def _devices() -> Finding:
    import torch

    threads = torch.get_num_threads()
    if torch.cuda.is_available():
        return True, "devices", f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}, {threads} CPU threads"
    return True, "devices", f"CPU with {threads} threads; no CUDA device"


def _arithmetic() -> Finding:
    from ncmi.training.environment import describe_arithmetic

    about = describe_arithmetic()
    libraries = ", ".join(
        f"{name} {'yes' if about[key] else 'no'}" for name, key in (("MKL", "mkl"), ("oneDNN", "mkldnn"))
    )
    return True, "CPU arithmetic", f"{about['cpu_capability']}, {libraries}; another kind of CPU is another draw"


def _loss() -> Finding:
    """The loss and its gradient against the plain sums, in float64, on the device that would be used."""
    import torch

    import ncmi
    from ncmi.loss import equation

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(8, 16, generator=generator, dtype=torch.float64).to(device).requires_grad_()
    labels = torch.arange(8, device=device) % 5
    q = equation.simplex(torch.randn(5, 16, generator=generator, dtype=torch.float64)).to(device)
    plain = equation.loss(equation.distribution(features, None, 0.5), labels, q)
    value = ncmi.ncmi_loss(ncmi.to_log_distribution(features, None, 0.5), labels, q.log())
    gradients = [torch.autograd.grad(loss, features, retain_graph=True)[0] for loss in (plain, value)]
    error = max(
        float((value - plain).detach().abs() / plain.detach().abs()),
        float((gradients[0] - gradients[1]).norm() / gradients[0].norm()),
    )
    return error < 1e-10, "loss and gradient", f"relative error {error:.1e} against the plain sums in float64"


def _data() -> list[Finding]:
    from ncmi.data.cifar_sets import find_cifar
    from ncmi.data.kinds import EMBEDDED

    findings: list[Finding] = [(True, "embedded data", ", ".join(EMBEDDED))]
    folder = os.environ.get("NCMI_DATA")
    if folder is None:
        findings.append((None, "NCMI_DATA", "not set; data sets are found by path"))
    else:
        there = Path(folder).is_dir()
        findings.append((there, "NCMI_DATA", folder if there else f"{folder} is no folder: set it to your data folder"))
        found = {name: find_cifar(name, folder) for name in ("cifar10", "cifar100")} if there else {}
        for name, cifar in found.items():
            told = "not below NCMI_DATA" if cifar is None else f"{cifar.layout} layout in {cifar.path}"
            findings.append((None if cifar is None else True, name, told))
    return findings
