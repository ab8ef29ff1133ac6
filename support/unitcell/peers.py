"""Importing the peer packages that need a hand first."""

import functools
import importlib

import torch


@functools.cache
def import_atomai():
    """Import AtomAI and return the module.

    AtomAI imports torchvision, whose compiled operators do not match the CPU build of PyTorch: its
    import then stops at `operator torchvision::nms does not exist`. Only their schemas are missed,
    the operators are never called here, so empty schemas are enough.
    """
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_atomai.library = library  # the schemas live as long as this object
    return importlib.import_module("atomai")
