"""Every family as a tiny pipeline of diffusers itself, with random weights, written to disk.

A `Case` knows how to build the pipeline, what its text inputs look like, and how to let diffusers'
own `__call__` denoise given latents; its `times` are the flow times that this call passes through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.engine.backbones.locate import locate
from dtg_restore.engine.config import RestoreConfig

diffusers = pytest.importorskip("diffusers")

CPU = torch.device("cpu")
Inputs = dict[str, Any]
Result = tuple[Tensor, list[float]]
STEPS = 4  # divides 1000, so that DDIM's next step is the next of its schedule


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Nothing that training would move away from is left at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        flat = parameter.data
        if flat.abs().max() == 0:
            flat.normal_(std=0.1, generator=generator)
        elif flat.min() == flat.max() == 1:
            flat.uniform_(0.5, 1.5, generator=generator)
        else:
            flat.add_(torch.randn(flat.shape, generator=generator), alpha=0.02)
    return module.eval().requires_grad_(False)


@dataclass(frozen=True)
class Case:
    """`texts` are shapes without the batch; a shape of one number whose name says mask is a mask.

    `latents` is (C, t, h, w).  `call` runs the pipeline from latents (1, C, t, h, w) and returns
    them denoised, with the flow times it went through; of output "pt" it returns frames instead.
    `blocks` are the module's stacks of layers.  `same` is how near two calls for one thing are,
    over the scale of the result.
    """

    name: str
    build: Callable[[], Any]
    texts: dict[str, tuple[int, ...]]
    latents: tuple[int, int, int, int]
    call: Callable[[Any, Tensor, Inputs, str], Result]
    blocks: tuple[str, ...] = ("transformer_blocks",)
    same: float = 1e-5

    def embeds(self, seed: int, batch: int = 1) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {
            name: (torch.arange(shape[0]) < shape[0] - 1 - seed % 2).expand(batch, -1)
            if "mask" in name
            else torch.randn(batch, *shape, generator=generator)
            for name, shape in self.texts.items()
        }

    def noise(self, seed: int, batch: int = 1) -> Tensor:
        return torch.randn(batch, *self.latents, generator=torch.Generator().manual_seed(seed))


def flow_scheduler(**settings: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**settings)


def sigmas_of(pipeline: Any) -> list[float]:
    return pipeline.scheduler.sigmas.tolist()


def plain_call(frames: int, pixels: int, **options: Any) -> Callable[..., Result]:
    """`call` of a pipeline whose latents are the state, with the strides of its VAE."""

    def call(pipeline: Any, x: Tensor, inputs: Inputs, output: str) -> Result:
        out = pipeline(
            latents=x,
            num_frames=(x.shape[2] - 1) * frames + 1,
            height=x.shape[3] * pixels,
            width=x.shape[4] * pixels,
            num_inference_steps=STEPS,
            output_type=output,
            **options,
            **inputs,
        ).frames
        return out, sigmas_of(pipeline)

    return call


def call_mochi(pipeline: Any, x: Tensor, inputs: Inputs, output: str) -> Result:
    out, sigmas = plain_call(6, 8, guidance_scale=1.0)(pipeline, x, inputs, output)
    return out, [1 - sigma for sigma in sigmas]


def ltx() -> Any:
    pipeline = _ltx()
    pipeline.vae.latents_mean.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    pipeline.vae.latents_std.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    return pipeline


def _ltx() -> Any:
    return diffusers.LTXPipeline(
        scheduler=flow_scheduler(),
        vae=randomise(
            diffusers.AutoencoderKLLTXVideo(
                latent_channels=8,
                block_out_channels=(8, 8, 8, 8),
                decoder_block_out_channels=(8, 8, 8, 8),
                layers_per_block=(1, 1, 1, 1, 1),
                decoder_layers_per_block=(1, 1, 1, 1, 1),
                spatio_temporal_scaling=(True, True, False, False),
                decoder_spatio_temporal_scaling=(True, True, False, False),
                patch_size=1,
                patch_size_t=1,
                encoder_causal=True,
                decoder_causal=False,
                scaling_factor=1.3,
            )
        ),
        text_encoder=None,
        tokenizer=None,
        transformer=randomise(
            diffusers.LTXVideoTransformer3DModel(
                in_channels=8,
                out_channels=8,
                num_attention_heads=2,
                attention_head_dim=16,
                cross_attention_dim=32,
                num_layers=1,
                caption_channels=12,
            )
        ),
    )


def call_ltx(pipeline: Any, x: Tensor, inputs: Inputs, output: str) -> Result:
    frames, height, width = x.shape[2:]
    codec = pipeline.vae_temporal_compression_ratio, pipeline.vae_spatial_compression_ratio
    out = pipeline(
        latents=pipeline._pack_latents(x),
        height=height * codec[1],
        width=width * codec[1],
        num_frames=(frames - 1) * codec[0] + 1,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        output_type=output,
        **inputs,
    ).frames
    if output == "latent":
        out = pipeline._unpack_latents(out, frames, height, width)
    return out, sigmas_of(pipeline)


def hunyuan_video() -> Any:
    return diffusers.HunyuanVideoPipeline(
        scheduler=flow_scheduler(shift=7.0),
        vae=randomise(
            diffusers.AutoencoderKLHunyuanVideo(
                latent_channels=4,
                down_block_types=("HunyuanVideoDownBlock3D",) * 4,
                up_block_types=("HunyuanVideoUpBlock3D",) * 4,
                block_out_channels=(8, 8, 8, 8),
                layers_per_block=1,
                norm_num_groups=2,
                mid_block_add_attention=False,
            )
        ),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=randomise(
            diffusers.HunyuanVideoTransformer3DModel(
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=10,
                num_layers=1,
                num_single_layers=1,
                num_refiner_layers=1,
                patch_size=2,
                patch_size_t=1,
                guidance_embeds=True,
                text_embed_dim=16,
                pooled_projection_dim=8,
                rope_axes_dim=(2, 4, 4),
            )
        ),
    )


def mochi() -> Any:
    return diffusers.MochiPipeline(
        scheduler=flow_scheduler(invert_sigmas=True),
        vae=randomise(
            diffusers.AutoencoderKLMochi(
                latent_channels=12,
                encoder_block_out_channels=(32, 32, 32, 32),
                decoder_block_out_channels=(32, 32, 32, 32),
                layers_per_block=(1, 1, 1, 1, 1),
                add_attention_block=(False, False, False, False, False),
                temporal_expansions=(1, 2, 3),
                spatial_expansions=(2, 2, 2),
            )
        ),
        text_encoder=None,
        tokenizer=None,
        transformer=randomise(
            diffusers.MochiTransformer3DModel(
                patch_size=2,
                num_attention_heads=2,
                attention_head_dim=8,
                num_layers=2,
                pooled_projection_dim=16,
                in_channels=12,
                text_embed_dim=16,
                time_embed_dim=4,
            )
        ),
    )


def cogvideox(**transformer: Any) -> Any:
    return diffusers.CogVideoXPipeline(
        scheduler=diffusers.CogVideoXDDIMScheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            clip_sample=False,
            snr_shift_scale=1.0,
            timestep_spacing="trailing",
        ),
        vae=randomise(
            diffusers.AutoencoderKLCogVideoX(
                latent_channels=4,
                down_block_types=("CogVideoXDownBlock3D",) * 4,
                up_block_types=("CogVideoXUpBlock3D",) * 4,
                block_out_channels=(8, 8, 8, 8),
                layers_per_block=1,
                norm_num_groups=2,
                temporal_compression_ratio=4,
            )
        ),
        text_encoder=None,
        tokenizer=None,
        transformer=randomise(
            diffusers.CogVideoXTransformer3DModel(
                **(
                    {
                        "num_attention_heads": 2,
                        "attention_head_dim": 16,
                        "in_channels": 4,
                        "out_channels": 4,
                        "time_embed_dim": 4,
                        "text_embed_dim": 16,
                        "num_layers": 1,
                        "sample_width": 6,
                        "sample_height": 4,
                        "sample_frames": 9,
                        "max_text_seq_length": 5,
                    }
                    | transformer
                )
            )
        ),
    )


def call_cogvideox(pipeline: Any, x: Tensor, inputs: Inputs, output: str) -> Result:
    """Its latents are y = x / n, and n is 1 at both ends of the run."""
    frames, height, width = x.shape[2:]
    out = pipeline(
        latents=x.transpose(1, 2),
        height=height * 8,
        width=width * 8,
        num_frames=(frames - 1) * 4 + 1,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        output_type=output,
        **inputs,
    ).frames
    schedule = pipeline.scheduler
    abar = [float(schedule.alphas_cumprod[k]) for k in schedule.timesteps] + [1.0]
    times = [(1 - a) ** 0.5 / ((1 - a) ** 0.5 + a**0.5) for a in abar]
    return out.transpose(1, 2) if output == "latent" else out, times


def wan_vae() -> Any:
    return randomise(
        diffusers.AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    )


def cosmos_transformer(**settings: Any) -> Any:
    return randomise(
        diffusers.CosmosTransformer3DModel(
            out_channels=16,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            mlp_ratio=2,
            text_embed_dim=16,
            adaln_lora_dim=4,
            max_size=(4, 16, 16),
            patch_size=(1, 2, 2),
            extra_pos_embed_type=None,
            **settings,
        )
    )


def resize_nearest(mask: Tensor, size: list[int], **_: Any) -> Tensor:
    """The one function that CosmosTransformer3DModel takes from torchvision."""
    return nn.functional.interpolate(mask, size, mode="nearest")


@contextmanager
def resizing() -> Iterator[None]:
    module = diffusers.models.transformers.transformer_cosmos
    with pytest.MonkeyPatch.context() as patch:
        modes = SimpleNamespace(NEAREST="nearest")
        functional = SimpleNamespace(resize=resize_nearest)
        fake = SimpleNamespace(functional=functional, InterpolationMode=modes)
        patch.setattr(module, "transforms", fake, raising=False)
        yield


class NoChecker:
    """Stands where diffusers wants a checker of generated content."""

    def to(self, *_: Any) -> None:
        pass

    def check_text_safety(self, _: str) -> bool:
        return True


def cosmos2() -> Any:
    return diffusers.Cosmos2VideoToWorldPipeline(
        text_encoder=None,
        tokenizer=None,
        vae=wan_vae(),
        scheduler=flow_scheduler(use_karras_sigmas=True),
        safety_checker=NoChecker(),
        transformer=cosmos_transformer(in_channels=17, concat_padding_mask=True),
    )


def call_cosmos2(pipeline: Any, x: Tensor, inputs: Inputs, output: str) -> Result:
    """Its latents are y = x (1 + sigma) with sigma = t / (1 - t), 80 at the start.

    It wants frames to go on from: their place in its masks is taken back.
    """
    prepare, (frames, height, width) = pipeline.prepare_latents, x.shape[2:]

    def forget(*args: Any, **options: Any) -> tuple[Tensor, ...]:
        latents, given, *masks = prepare(*args, **options)
        return latents, given, *(mask if mask is None else mask * 0 for mask in masks)

    with resizing(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(vars(pipeline), "prepare_latents", forget)
        out = pipeline(
            image=torch.rand(1, 3, height * 8, width * 8),
            latents=x * (1 + pipeline.sigma_max) / pipeline.sigma_max,
            height=height * 8,
            width=width * 8,
            num_frames=(frames - 1) * 4 + 1,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
            output_type=output,
            **inputs,
        ).frames
    sigmas = sigmas_of(pipeline)
    return out / (1 + sigmas[-1]), [sigma / (1 + sigma) for sigma in sigmas]


def cosmos25() -> Any:
    """Of Cosmos-Predict2.5: a plane for the frames that are given."""
    return diffusers.Cosmos2_5_PredictBasePipeline(
        text_encoder=None,
        tokenizer=None,
        vae=wan_vae(),
        scheduler=diffusers.UniPCMultistepScheduler(  # held to first order, which is Euler's
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=3.0,
            solver_order=1,
            disable_corrector=list(range(STEPS)),
        ),
        safety_checker=NoChecker(),
        transformer=cosmos_transformer(
            in_channels=17,
            concat_padding_mask=True,
            use_crossattn_projection=True,
            crossattn_proj_in_channels=24,
            encoder_hidden_states_channels=16,
        ),
    )


def call_cosmos25(pipeline: Any, x: Tensor, inputs: Inputs, output: str) -> Result:
    frames, height, width = x.shape[2:]
    with resizing():
        out = pipeline(
            image=None,
            latents=x,
            height=height * 8,
            width=width * 8,
            num_frames=(frames - 1) * 4 + 1,
            num_inference_steps=STEPS,
            guidance_scale=0.0,
            output_type=output,
            **inputs,
        ).frames
    return out, sigmas_of(pipeline)


def hunyuan_video15() -> Any:
    return diffusers.HunyuanVideo15Pipeline(
        scheduler=flow_scheduler(shift=7.0),
        vae=randomise(
            diffusers.AutoencoderKLHunyuanVideo15(
                latent_channels=4,
                block_out_channels=(16, 16, 16, 16, 16),
                layers_per_block=1,
                spatial_compression_ratio=16,
                temporal_compression_ratio=4,
            )
        ),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=1.0),
        transformer=randomise(
            diffusers.HunyuanVideo15Transformer3DModel(
                in_channels=9,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=1,
                num_refiner_layers=1,
                mlp_ratio=2.0,
                text_embed_dim=16,
                text_embed_2_dim=8,
                image_embed_dim=1152,
                rope_axes_dim=(4, 6, 6),
                target_size=16,
                task_type="t2v",
            )
        ),
    )


def sana_video(vae: Callable[[], Any] = wan_vae, channels: int = 16) -> Any:
    return diffusers.SanaVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae(),
        scheduler=flow_scheduler(shift=3.0),  # its own solver rounds times to whole numbers
        transformer=randomise(
            diffusers.SanaVideoTransformer3DModel(
                in_channels=channels,
                out_channels=channels,
                num_attention_heads=2,
                attention_head_dim=12,
                num_layers=1,
                num_cross_attention_heads=2,
                cross_attention_head_dim=12,
                cross_attention_dim=24,
                caption_channels=16,
                mlp_ratio=2.0,
                sample_size=8,
                patch_size=(1, 2, 2),
            )
        ),
    )


def call_sana(pipeline: Any, x: Tensor, inputs: Inputs, output: str) -> Result:
    frames, height, width = x.shape[2:]
    spatial, temporal = pipeline.vae_scale_factor_spatial, pipeline.vae_scale_factor_temporal
    out = pipeline(
        **({"prompt": None, "negative_prompt": None} | inputs),
        latents=x,
        height=height * spatial,
        width=width * spatial,
        frames=(frames - 1) * temporal + 1,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        use_resolution_binning=False,
        output_type=output,
    ).frames
    return out, sigmas_of(pipeline)


def skyreels(pipeline: str = "SkyReelsV2Pipeline", **settings: Any) -> Any:
    return getattr(diffusers, pipeline)(
        tokenizer=None,
        text_encoder=None,
        vae=wan_vae(),
        scheduler=flow_scheduler(),  # its own solver rounds times to whole numbers
        transformer=randomise(
            diffusers.SkyReelsV2Transformer3DModel(
                num_attention_heads=2,
                attention_head_dim=12,
                in_channels=16,
                out_channels=16,
                text_dim=16,
                freq_dim=32,
                ffn_dim=40,
                num_layers=1,
                rope_max_seq_len=32,
                **settings,
            )
        ),
    )


def call_forcing(pipeline: Any, x: Tensor, inputs: Inputs, output: str) -> Result:
    """Given latents and times that are no integers are more than this pipeline takes.

    Its times, of an unshifted schedule, are whole numbers here.
    """
    matrix = pipeline.generate_timestep_matrix

    def floats(*args: Any) -> tuple[Any, ...]:
        times, *others = matrix(*args)
        return times.float(), *others

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vars(pipeline), "generate_timestep_matrix", floats)
        prepared = lambda *_, **__: (x.clone(), x.shape[2], None, 0)  # noqa: E731
        patch.setitem(vars(pipeline), "prepare_latents", prepared)
        return plain_call(4, 8, guidance_scale=1.0, prompt=None)(pipeline, x, inputs, output)


def kandinsky5() -> Any:
    return diffusers.Kandinsky5T2VPipeline(
        vae=hunyuan_video().vae,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        scheduler=flow_scheduler(shift=5.0),
        transformer=randomise(
            diffusers.Kandinsky5Transformer3DModel(
                in_visual_dim=4,
                in_text_dim=16,
                in_text_dim2=8,
                time_dim=32,
                out_visual_dim=4,
                model_dim=32,
                ff_dim=64,
                num_text_blocks=1,
                num_visual_blocks=2,
                axes_dims=(4, 6, 6),
                visual_cond=True,
                attention_type="regular",
            )
        ),
    )


def call_kandinsky5(pipeline: Any, x: Tensor, inputs: Inputs, output: str) -> Result:
    if "prompt_embeds_qwen" in inputs:
        length = inputs["prompt_embeds_qwen"].shape[1]
        inputs = inputs | {"prompt_cu_seqlens": torch.tensor([0, length])}
    frames, height, width = x.shape[2:]
    out = pipeline(
        latents=torch.cat([x, torch.zeros_like(x), torch.zeros_like(x[:, :1])], 1).movedim(1, -1),
        height=height * 8,
        width=width * 8,
        num_frames=(frames - 1) * 4 + 1,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        output_type=output,
        **inputs,
    ).frames
    return out.movedim(-1, 1) if output == "latent" else out, sigmas_of(pipeline)


def ltx2_vae() -> Any:
    vae = randomise(
        diffusers.AutoencoderKLLTX2Video(
            latent_channels=8,
            block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            down_block_types=("LTX2VideoDownBlock3D",) * 2,
            layers_per_block=(1, 1, 1),
            decoder_layers_per_block=(1, 1, 1),
            spatio_temporal_scaling=(True, True),
            decoder_spatio_temporal_scaling=(True, True),
            decoder_inject_noise=(False, False, False),
            downsample_type=("spatiotemporal", "spatiotemporal"),
            upsample_residual=(False, False),
            upsample_factor=(1, 1),
            upsample_type=("spatiotemporal", "spatiotemporal"),
            patch_size=1,
            patch_size_t=1,
            decoder_spatial_padding_mode="zeros",
            spatial_compression_ratio=4,
            temporal_compression_ratio=4,
        )
    )
    vae.latents_mean.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    vae.latents_std.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    return vae


def ltx2() -> Any:
    from diffusers.pipelines.ltx2 import LTX2TextConnectors

    return diffusers.LTX2Pipeline(
        scheduler=flow_scheduler(),
        vae=ltx2_vae(),
        audio_vae=diffusers.AutoencoderKLLTX2Audio(
            base_channels=4, ch_mult=(1,), num_res_blocks=1, latent_channels=2, mel_bins=8
        ),
        text_encoder=None,
        tokenizer=None,
        connectors=randomise(
            LTX2TextConnectors(
                caption_channels=16,
                text_proj_in_factor=4,
                video_connector_num_attention_heads=2,
                video_connector_attention_head_dim=8,
                video_connector_num_layers=1,
                video_connector_num_learnable_registers=None,
                audio_connector_num_attention_heads=2,
                audio_connector_attention_head_dim=8,
                audio_connector_num_layers=1,
                audio_connector_num_learnable_registers=None,
            )
        ),
        vocoder=None,
        transformer=randomise(
            diffusers.LTX2VideoTransformer3DModel(
                in_channels=8,
                out_channels=8,
                num_attention_heads=2,
                attention_head_dim=16,
                cross_attention_dim=32,
                vae_scale_factors=(4, 4, 4),
                audio_in_channels=4,
                audio_out_channels=4,
                audio_num_attention_heads=2,
                audio_attention_head_dim=8,
                audio_cross_attention_dim=16,
                num_layers=1,
                caption_channels=16,
            )
        ),
    )


def call_ltx2(pipeline: Any, x: Tensor, inputs: Inputs, output: str) -> Result:
    """Given embeddings are taken as the connectors' result, and the sound is kept apart.

    Its latents, given and returned, are those of the VAE.
    """
    vae, ratio = pipeline.vae, pipeline.vae_spatial_compression_ratio
    statistics = vae.latents_mean, vae.latents_std, vae.config.scaling_factor
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda _, args, options: (args, options | {"isolate_modalities": True}), with_kwargs=True
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vars(pipeline), "vocoder", lambda sound: sound)
        if "prompt_embeds" in inputs:
            passed = lambda embeds, mask, **_: (embeds, embeds, mask)  # noqa: E731
            patch.setattr(pipeline.connectors, "forward", passed)
        out = pipeline(
            latents=pipeline._denormalize_latents(x, *statistics),
            height=x.shape[3] * ratio,
            width=x.shape[4] * ratio,
            num_frames=(x.shape[2] - 1) * pipeline.vae_temporal_compression_ratio + 1,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
            stg_scale=0.0,
            modality_scale=1.0,
            guidance_rescale=0.0,
            audio_guidance_scale=1.0,
            audio_stg_scale=0.0,
            audio_modality_scale=1.0,
            output_type=output,
            **inputs,
        ).frames
    hook.remove()
    if output == "latent":
        out = pipeline._normalize_latents(out, *statistics)
    return out, sigmas_of(pipeline)


def motif_video() -> Any:
    return diffusers.MotifVideoPipeline(
        scheduler=flow_scheduler(shift=3.0),
        vae=wan_vae(),
        text_encoder=None,
        tokenizer=None,
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=1.0),
        transformer=randomise(
            diffusers.MotifVideoTransformer3DModel(
                in_channels=33,
                out_channels=16,
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=1,
                num_single_layers=2,
                num_decoder_layers=1,
                mlp_ratio=2.0,
                text_embed_dim=16,
                rope_axes_dim=(4, 6, 6),
            )
        ),
    )


def easyanimate() -> Any:
    return diffusers.EasyAnimatePipeline(
        vae=randomise(
            diffusers.AutoencoderKLMagvit(
                latent_channels=4,
                block_out_channels=(8, 8, 8, 8),
                layers_per_block=1,
                norm_num_groups=2,
            )
        ),
        text_encoder=None,
        tokenizer=None,
        scheduler=flow_scheduler(shift=3.0),
        transformer=randomise(
            diffusers.EasyAnimateTransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=16,
                in_channels=4,
                out_channels=4,
                patch_size=2,
                num_layers=1,
                mmdit_layers=1,
                time_embed_dim=4,
                text_embed_dim=16,
            )
        ),
    )


def call_easyanimate(pipeline: Any, x: Tensor, inputs: Inputs, output: str) -> Result:
    mask = torch.ones(1, 5, dtype=torch.bool)
    inputs = inputs | {"prompt_attention_mask": mask}
    return plain_call(4, 8, guidance_scale=1.0)(pipeline, x, inputs, output)


TEXT = {"prompt_embeds": (5, 16), "prompt_attention_mask": (5,)}
CASES = [
    Case(
        "ltx",
        ltx,
        {"prompt_embeds": (5, 12), "prompt_attention_mask": (5,)},
        (8, 3, 8, 16),
        call_ltx,
    ),
    Case(
        "hunyuan-video",
        hunyuan_video,
        TEXT | {"pooled_prompt_embeds": (8,)},
        (4, 2, 4, 6),
        plain_call(4, 8, guidance_scale=1.0),
        blocks=("transformer_blocks", "single_transformer_blocks"),
    ),
    Case("mochi", mochi, TEXT, (12, 2, 4, 6), call_mochi),
    Case("cogvideox", cogvideox, {"prompt_embeds": (5, 16)}, (4, 3, 4, 6), call_cogvideox),
    Case(
        "cogvideox-rotary",
        lambda: cogvideox(use_rotary_positional_embeddings=True, sample_height=8),
        {"prompt_embeds": (5, 16)},
        (4, 3, 4, 6),
        call_cogvideox,
    ),
    Case(
        "cogvideox-1.5",
        lambda: cogvideox(use_rotary_positional_embeddings=True, patch_size_t=2),
        {"prompt_embeds": (5, 16)},
        (4, 4, 4, 6),
        call_cogvideox,
    ),
    Case("cosmos", cosmos2, {"prompt_embeds": (5, 16)}, (16, 2, 4, 6), call_cosmos2),
    Case("cosmos-2.5", cosmos25, {"prompt_embeds": (5, 24)}, (16, 2, 4, 6), call_cosmos25),
    Case(
        "hunyuan-video-1.5",
        hunyuan_video15,
        {
            "prompt_embeds": (5, 16),
            "prompt_embeds_mask": (5,),
            "prompt_embeds_2": (4, 8),
            "prompt_embeds_mask_2": (4,),
        },
        (4, 2, 3, 4),
        plain_call(4, 16),
    ),
    Case("sana-video", sana_video, TEXT, (16, 2, 4, 8), call_sana),
    Case(
        "skyreels-v2",
        skyreels,
        {"prompt_embeds": (5, 16)},
        (16, 2, 4, 6),
        plain_call(4, 8, guidance_scale=1.0),
        ("blocks",),
    ),
    Case(
        "skyreels-v2-forcing",
        lambda: skyreels("SkyReelsV2DiffusionForcingPipeline", inject_sample_info=True),
        {"prompt_embeds": (5, 16)},
        (16, 2, 4, 6),
        call_forcing,
        blocks=("blocks",),
    ),
    Case(
        "kandinsky5",
        kandinsky5,
        {"prompt_embeds_qwen": (5, 16), "prompt_embeds_clip": (8,)},
        (4, 2, 4, 6),
        call_kandinsky5,
        blocks=("visual_transformer_blocks",),
        same=1e-3,  # the module rounds rotated queries and keys to bf16, whatever its dtype
    ),
    Case("ltx2", ltx2, TEXT, (8, 2, 8, 16), call_ltx2),
    Case(
        "motif-video",
        motif_video,
        TEXT,
        (16, 2, 4, 6),
        plain_call(4, 8),
        blocks=("transformer_blocks", "single_transformer_blocks"),
    ),
    Case("easyanimate", easyanimate, {"prompt_embeds": (5, 16)}, (4, 2, 4, 6), call_easyanimate),
]


@dataclass(frozen=True)
class Saved:
    case: Case
    pipeline: Any
    folder: Path

    @property
    def family(self) -> Any:
        return locate(str(self.folder)).load()

    def backbone(self, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
        return self.family.backbone(self.folder, RestoreConfig(**settings), CPU, dtype)


_saved: dict[str, Saved] = {}


@pytest.fixture(params=[case.name for case in CASES])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A family on disk; `parametrize(..., indirect=True)` picks some by name."""
    name = request.param
    if name not in _saved:
        case = next(case for case in CASES if case.name == name)
        torch.manual_seed(0)
        pipeline, folder = case.build(), tmp_path_factory.mktemp(name)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.save_pretrained(folder)
        _saved[name] = Saved(case, pipeline, folder)
    return _saved[name]
