"""A pipeline of words to digits as diffusers writes its own: tokenizer, text encoder, transformer, scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, ImagePipelineOutput, SD3Transformer2DModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from models.words import NUMBERS, TRAITS

LENGTH = 8  # tokens of a prompt: start, up to six words, end
_PADDING, _START, _UNKNOWN, _END = "<padding>", "<start>", "<unknown>", "<end>"

Generators = torch.Generator | list[torch.Generator] | None


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of `models.words`, in either case; every other word is the token that says nothing.

    >>> tokenizer = word_tokenizer()
    >>> found = tokenizer("a Dark three", return_offsets_mapping=True)
    >>> tokenizer.convert_ids_to_tokens(found.input_ids)
    ['<start>', '<unknown>', 'dark', 'three', '<end>']
    >>> found.offset_mapping
    [(0, 0), (0, 1), (2, 6), (7, 12), (0, 0)]
    """
    words = [_PADDING, _START, _UNKNOWN, _END, *NUMBERS, *(word for pair in TRAITS.values() for word in pair)]
    vocabulary = {word: i for i, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(mark, vocabulary[mark]) for mark in (_START, _END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=_PADDING,
        bos_token=_START,
        unk_token=_UNKNOWN,
        eos_token=_END,
        model_max_length=LENGTH,
    )


def encoder_config(tokenizer: PreTrainedTokenizerFast, width: int, heads: int) -> CLIPTextConfig:
    """Of a text encoder of one layer that reads these tokens, and projects its pooled state to the same width."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=heads,
        max_position_embeddings=LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


class PromptDigitsPipeline(DiffusionPipeline):
    """Words to digits by an SD3-type transformer (Esser et al. 2024) on pixels, guided without a classifier.

    Args:
        tokenizer: see `word_tokenizer`.
        text_encoder: contextual; its states are joined to the picture's, its pooled state steers every layer.
        transformer: the denoiser.
        scheduler: DDIM's, or another's.
    """

    model_cpu_offload_seq = "text_encoder->transformer"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        text_encoder: CLIPTextModel,
        transformer: SD3Transformer2DModel,
        scheduler: DDIMScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, transformer=transformer, scheduler=scheduler
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)
        self._guidance_scale = 1.0

    @property
    def guidance_scale(self) -> float:
        """Of the last call."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the last call asked the transformer without the prompt too."""
        return self._guidance_scale > 1

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int = 10,
        guidance_scale: float = 1.5,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Pictures of these prompts, by ``n + guidance_scale (c - n)``: ``c`` with the prompt, ``n`` without it.

        Args:
            prompt: one, or one a row.
            negative_prompt: what ``n`` is told; nothing when None.
            num_inference_steps: of the scheduler.
            guidance_scale: at 1 and below, the transformer is only asked with the prompt.
            num_images_per_prompt: rows of each prompt.
            eta: of DDIM; 0 adds no noise.
            generator: of the noise; one, or one a row.
            latents: the noise ``[n, 1, H, W]`` to start from.
            output_type: "pil", "np" or "pt" (from 0 to 1), or "latent" (from -1 to 1, as the transformer sees them).
            return_dict: an `ImagePipelineOutput`, or a tuple when False.
            callback_on_step_end: called after each step as ``f(pipeline, i, t, tensors)``; the run goes on with the
                tensors that it returns.
            callback_on_step_end_tensor_inputs: which it is given: "latents", "prompt_embeds", "pooled_prompt_embeds".

        Raises:
            ValueError: not as many negative prompts, generators or latents as rows.
        """
        self._guidance_scale = guidance_scale
        prompts, negative = _each(prompt, negative_prompt, num_images_per_prompt)
        states, pooled = self.encode_prompt(prompts)
        if self.do_classifier_free_guidance:
            without, pooled_without = self.encode_prompt(negative)
            states, pooled = torch.cat([without, states]), torch.cat([pooled_without, pooled])
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        start = self.prepare_latents(len(prompts), states.dtype, self._execution_device, generator, latents)
        extra = self.prepare_extra_step_kwargs(generator, eta)
        now = {"latents": start, "prompt_embeds": states, "pooled_prompt_embeds": pooled}
        with self.progress_bar(total=num_inference_steps) as bar:
            for i, t in enumerate(self.scheduler.timesteps):
                predicted = self._predicted(t, now["latents"], now["prompt_embeds"], now["pooled_prompt_embeds"])
                now["latents"] = self.scheduler.step(predicted, t, now["latents"], **extra, return_dict=False)[0]
                if callback_on_step_end is not None:
                    given = {name: now[name] for name in callback_on_step_end_tensor_inputs}
                    now |= callback_on_step_end(self, i, t, given)
                bar.update()
        images = self.image_processor.postprocess(now["latents"], output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def encode_prompt(self, prompt: list[str]) -> tuple[Tensor, Tensor]:
        """The states ``[n, LENGTH, width]`` of all tokens, padding too, and the pooled state ``[n, width]``."""
        length = self.tokenizer.model_max_length
        ids = self.tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        found = self.text_encoder(ids.input_ids.to(self._execution_device))
        return found.last_hidden_state, found.pooler_output

    def prepare_latents(
        self, rows: int, dtype: torch.dtype, device: torch.device, generator: Generators, latents: Tensor | None
    ) -> Tensor:
        """Where the run starts: noise of the scheduler's own strength.

        Raises:
            ValueError: not as many generators or latents as rows.
        """
        side = self.transformer.config.sample_size
        shape = (rows, self.transformer.config.in_channels, side, side)
        if isinstance(generator, list) and len(generator) != rows:
            raise ValueError(f"{rows} rows have {len(generator)} generators: give one, or one a row")
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        elif latents.shape != shape:
            raise ValueError(f"latents must be {list(shape)}, got {list(latents.shape)}")
        return latents.to(device, dtype) * self.scheduler.init_noise_sigma

    def prepare_extra_step_kwargs(self, generator: Generators, eta: float) -> dict[str, Any]:
        """What this scheduler's step takes besides."""
        taken = inspect.signature(self.scheduler.step).parameters
        return {name: value for name, value in (("eta", eta), ("generator", generator)) if name in taken}

    def _predicted(self, t: Tensor, latents: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        """The guided prediction; both branches are one batch, the one without the prompt first."""
        doubled = torch.cat([latents] * 2) if self.do_classifier_free_guidance else latents
        predicted = self.transformer(
            hidden_states=self.scheduler.scale_model_input(doubled, t),
            encoder_hidden_states=states,
            pooled_projections=pooled,
            timestep=t.expand(len(doubled)),
            return_dict=False,
        )[0]
        if not self.do_classifier_free_guidance:
            return predicted
        without, given = predicted.chunk(2)
        return without + self.guidance_scale * (given - without)


def _each(
    prompt: str | list[str], negative: str | list[str] | None, images_per_prompt: int
) -> tuple[list[str], list[str]]:
    """Prompt and negative prompt of every row.

    Raises:
        ValueError: not one negative prompt, nor one each.
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    negatives = negative if isinstance(negative, list) else [negative or ""] * len(prompts)
    if len(negatives) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts have {len(negatives)} negative prompts: give one, or one each")
    first, second = ([text for text in texts for _ in range(images_per_prompt)] for texts in (prompts, negatives))
    return first, second
