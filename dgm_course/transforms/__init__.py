"""Invertible transforms. One direction: `z, log_det = transform(x)` and `x, log_det = transform.inverse(z)`."""

from dgm_course.transforms.base import Compose, Inverse, Transform
from dgm_course.transforms.continuous import Continuous, VectorField
from dgm_course.transforms.coupling import Additive, Affine, Coupling, MaskedCoupling
from dgm_course.transforms.glow import ActNorm, InvertibleConv1x1
from dgm_course.transforms.image import Logit, MultiScale, Squeeze, channel_mask, checkerboard_mask
from dgm_course.transforms.linear import Permute, Rescale, Standardize
from dgm_course.transforms.low_rank import Planar, Radial, Sylvester
from dgm_course.transforms.masked import Autoregressive
from dgm_course.transforms.monotone import PositiveNetwork, Sigmoidal, SumOfSquares
from dgm_course.transforms.residual import ContractiveConvNet, ContractiveMLP, Residual
from dgm_course.transforms.splines import Cubic, RationalQuadratic

__all__ = [
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "Compose",
    "Continuous",
    "ContractiveConvNet",
    "ContractiveMLP",
    "Coupling",
    "Cubic",
    "Inverse",
    "InvertibleConv1x1",
    "Logit",
    "MaskedCoupling",
    "MultiScale",
    "Permute",
    "Planar",
    "PositiveNetwork",
    "Radial",
    "RationalQuadratic",
    "Rescale",
    "Residual",
    "Sigmoidal",
    "Squeeze",
    "Standardize",
    "SumOfSquares",
    "Sylvester",
    "Transform",
    "VectorField",
    "channel_mask",
    "checkerboard_mask",
]
