# SPDX-License-Identifier: Apache-2.0
"""How near a run comes to a discontinuity that f32 arithmetic could cross."""

import math

import torch


class Margins:
    """Watches how close any token comes to another choice of experts and any number to a clamp."""

    def __init__(self, model):
        self.gap, self.clamp, self.clamped, self.outputs = math.inf, math.inf, 0, 0
        self.num_tokens = self.biased_choices = self.zero_fill_choices = 0
        self.tokens = {}
        for name, module in model.named_modules():
            if type(module).__name__.lower().endswith("topkrouter"):
                module.register_forward_hook(lambda module, _, out, name=name: self.see_router(module, out, name))
            if hasattr(module, "_apply_gate") and hasattr(module, "limit"):
                plain = module._apply_gate
                module._apply_gate = lambda h, experts=module, plain=plain: (self.see_gate(experts, h), plain(h))[1]
            clip = getattr(model.config, "clip_qkv", None)
            if clip is not None and name.endswith(("q_norm", "k_norm", "v_proj")):
                module.register_forward_hook(lambda _, __, out: self.see_clamp(out.detach(), clip, -clip))

    def see_gap(self, values, chosen):
        """values [N, candidates], of which the largest `chosen` are chosen."""
        if chosen < values.shape[1]:
            top = values.topk(chosen + 1, dim=-1).values
            self.gap = min(self.gap, (top[:, -2] - top[:, -1]).min().item())

    def see_router(self, router, out, name):
        logits = out[0].detach()
        if hasattr(router, "e_score_correction_bias"):
            self.see_groups(router, logits.sigmoid())
        else:
            self.see_gap(logits, router.top_k)
        self.tokens[name] = torch.bincount(out[2].reshape(-1), minlength=router.num_experts).tolist()

    def see_groups(self, router, scores):
        def masked(values, fill):
            groups = values.view(len(values), router.num_group, -1)
            sums = groups.topk(2, dim=-1).values.sum(dim=-1)
            kept = torch.zeros_like(sums).scatter_(1, sums.topk(router.topk_group, dim=-1).indices, 1).bool()
            return sums, groups.masked_fill(~kept.unsqueeze(-1), fill).reshape(values.shape)

        def chosen(values):
            return values.topk(router.top_k, dim=-1).indices.sort(dim=-1).values

        biased = scores + router.e_score_correction_bias
        sums, choice = masked(biased, -math.inf)
        self.see_gap(sums, router.topk_group)
        self.see_gap(choice, router.top_k)
        self.num_tokens += len(scores)
        self.biased_choices += int((chosen(choice) != chosen(masked(scores, -math.inf)[1])).any(dim=-1).sum())
        self.zero_fill_choices += int((chosen(choice) != chosen(masked(biased, 0.0)[1])).any(dim=-1).sum())

    def see_gate(self, experts, gate_up):
        h = gate_up.detach()
        self.see_clamp(h[:, 0::2], experts.limit, -math.inf)
        self.see_clamp(h[:, 1::2], experts.limit, -experts.limit)

    def see_clamp(self, values, high, low):
        distances = torch.cat([(values - bound).abs().reshape(-1) for bound in (high, low)])
        self.clamp = min(self.clamp, distances.min().item()) if values.numel() else self.clamp
        self.clamped += int((values > high).sum() + (values < low).sum())
        self.outputs += values.numel()
