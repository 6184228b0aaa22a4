"""Invertible transforms. One direction: `z, log_det = transform(x)` and `x, log_det = transform.inverse(z)`."""

from dgm_course.transforms.base import Compose, Inverse, Transform
from dgm_course.transforms.coupling import Additive, Affine, Coupling, MaskedCoupling
from dgm_course.transforms.glow import ActNorm, InvertibleConv1x1
from dgm_course.transforms.image import Logit, MultiScale, Squeeze, channel_mask, checkerboard_mask
from dgm_course.transforms.linear import Permute, Rescale, Standardize
from dgm_course.transforms.low_rank import Planar, Radial, Sylvester

__all__ = [
    "ActNorm",
    "Additive",
    "Affine",
    "Compose",
    "Coupling",
    "Inverse",
    "InvertibleConv1x1",
    "Logit",
    "MaskedCoupling",
    "MultiScale",
    "Permute",
    "Planar",
    "Radial",
    "Rescale",
    "Squeeze",
    "Standardize",
    "Sylvester",
    "Transform",
    "channel_mask",
    "checkerboard_mask",
]
