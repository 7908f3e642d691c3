"""Inputs of a micro-batch: standardised, varied where the recipe asks for it, one view or several."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ncmi.data import Kind, Standardiser, augment_images, augment_table
from ncmi.data.augment_colour import augment_colours
from ncmi.recipes import Augmentation


class ViewMaker:
    """Makes the inputs of a step from raw samples; its randomness depends on (seed, epoch, step, micro-batch) alone.

    Args:
        augmentation: how inputs are varied.
        kind: of the data.
        views: views that the objective needs of each sample.
        seed: of the run.
    """

    def __init__(self, augmentation: Augmentation, kind: Kind, views: int, seed: int) -> None:
        self.augmentation = augmentation
        self.kind = kind
        self.views = views
        self.seed = seed
        self.varies = augmentation.enabled or views > 1

    def __call__(
        self, inputs: Tensor, own: slice, standardise: Standardiser, dtype: torch.dtype, at: tuple[int, int, int]
    ) -> Tensor:
        """This process's inputs ``[views·n, …]``, view by view, of the micro-batch ``inputs [N, …]`` of all processes.

        Every process varies the whole micro-batch and takes its own part, so that what a sample looks like does not
        depend on the number of processes.
        """
        if not self.varies:
            return _standard(inputs[own], standardise, dtype)
        seed = np.random.SeedSequence((self.seed, *at)).generate_state(1, np.uint64)[0]
        generator = torch.Generator(inputs.device).manual_seed(int(seed >> 1))
        if self.kind == "image" and self.augmentation.varies_colour:
            # before standardising: colours vary in 0…1, and what then moves in at the border is the mean
            shown, views = inputs.float() / 255, []
            for _ in range(self.views):
                standard = _standard(self._colour(shown, generator).mul_(255), standardise, dtype)
                views.append(self._vary(standard, generator)[own])
        else:
            standard = _standard(inputs, standardise, dtype)
            views = [self._vary(standard, generator)[own] for _ in range(self.views)]
        return views[0] if self.views == 1 else torch.cat(views)

    def _colour(self, shown: Tensor, generator: torch.Generator) -> Tensor:
        options = self.augmentation
        return augment_colours(
            shown,
            generator,
            brightness=options.brightness,
            contrast=options.contrast,
            saturation=options.saturation,
            hue=options.hue,
            jitter_probability=options.jitter_probability,
            grey=options.grey,
        )

    def _vary(self, standard: Tensor, generator: torch.Generator) -> Tensor:
        options = self.augmentation
        if self.kind == "table":
            return augment_table(standard, generator, noise=options.noise, mask=options.mask)
        shift = options.shift
        if shift is None:
            shift = 0 if options.crop_scale else max(1, min(standard.shape[-2:]) // 8)
        return augment_images(
            standard,
            generator,
            shift=shift,
            flip=options.flip,
            noise=options.noise,
            rotation=options.rotation,
            crop_scale=options.crop_scale,
        )


def _standard(inputs: Tensor, standardise: Standardiser, dtype: torch.dtype) -> Tensor:
    standard: Tensor = standardise(inputs)
    return standard.to(dtype)


def split_views(features: Tensor, views: int) -> Tensor:
    """Features ``[views·n, D]`` of the network as the objective takes them: ``[n, D]`` or ``[n, views, D]``."""
    return features if views == 1 else features.unflatten(0, (views, -1)).transpose(0, 1)
