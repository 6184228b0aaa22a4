"""Diffusion models: DDPM and DDIM in discrete time, score models and flow matching in continuous time."""

from dgm_course.diffusion.continuous import (
    FlowMatching,
    ScoreModel,
    denoising_score_matching,
    gaussian_mixture_score,
)
from dgm_course.diffusion.ddpm import DDPM, cosine_schedule, interval_log_prob, linear_schedule
from dgm_course.diffusion.networks import TimeMLP, TimeUNet, time_features

__all__ = [
    "DDPM",
    "FlowMatching",
    "ScoreModel",
    "TimeMLP",
    "TimeUNet",
    "cosine_schedule",
    "denoising_score_matching",
    "gaussian_mixture_score",
    "interval_log_prob",
    "linear_schedule",
    "time_features",
]
