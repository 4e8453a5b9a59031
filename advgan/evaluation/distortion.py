"""How large and how visible the changes are."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from advgan.data.batches import images_at_once, slices
from advgan.perturbation import measure
from advgan.records.evaluation import Distortion

SSIM_WINDOW = 11
"""The side of the window of ``tf.image.ssim``; smaller images have no SSIM."""


def distortion(images: np.ndarray, adversarial: np.ndarray, counted: np.ndarray) -> Distortion:
    """Measure adversarial images; where no image counts, the means are None.

    Args:
        images, adversarial: float32 in [0, 1], shape (n, height, width, channels).
        counted: the images that enter the means, booleans of shape (n,).
    """
    norms = measure(images, adversarial)
    largest = float(norms.linf.max(initial=0.0))
    if not counted.any():
        return Distortion(largest_linf=largest, mean_l2=None, mean_l0=None, mean_ssim=None, mean_psnr=None)
    psnr = _by_batch(tf.image.psnr, images, adversarial, counted)
    ssim = _by_batch(tf.image.ssim, images, adversarial, counted) if min(images.shape[1:3]) >= SSIM_WINDOW else None
    finite = np.isfinite(psnr)
    return Distortion(
        largest_linf=largest,
        mean_l2=float(norms.l2[counted].mean()),
        mean_l0=float(norms.l0[counted].mean()),
        mean_ssim=None if ssim is None else float(ssim.mean()),
        mean_psnr=float(psnr[finite].mean()) if finite.any() else None,
    )


def _by_batch(measured: object, images: np.ndarray, adversarial: np.ndarray, counted: np.ndarray) -> np.ndarray:
    places = np.flatnonzero(counted)
    batches = [places[part] for part in slices(len(places), images_at_once(images.shape[1:]))]
    values = [
        measured(tf.constant(images[here]), tf.constant(adversarial[here]), max_val=1.0).numpy()  # type: ignore[operator]
        for here in batches
    ]
    return np.concatenate(values).astype(np.float64)
