"""Muon for the matrices inside the layers, AdamW for everything else."""

import torch


def orthogonal(matrices, rounds=4):
    """The nearest orthogonal matrices, roughly: Newton-Schulz rounds on a stack of them.

    The coefficients are Muon's usual ones. They leave singular values between 0.7 and 1.2, which is
    near enough; the usual number of rounds is five, and four cost a fifth less.
    """
    x = matrices.mT if matrices.size(-2) > matrices.size(-1) else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if matrices.size(-2) > matrices.size(-1) else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal; matrices of one shape are handled as one stack."""

    def __init__(self, parameters, lr=0.02, momentum=0.95, weight_decay=0.01):
        shapes = {}
        for parameter in parameters:
            shapes.setdefault(tuple(parameter.shape), []).append(parameter)
        super().__init__([{"params": group} for group in shapes.values()], dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            updates = []
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                updates.append(parameter.grad.lerp(momentum, group["momentum"]))
            rows, columns = updates[0].shape
            scale = group["lr"] * max(1, rows / columns) ** 0.5
            for parameter, update in zip(group["params"], orthogonal(torch.stack(updates))):
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)


def optimizers(model):
    """Both optimizers, each holding its own parameters."""
    inner = [p for name, p in model.named_parameters() if p.dim() == 2 and "layers" in name]
    outer = [p for name, p in model.named_parameters() if p.dim() != 2 or "layers" not in name]
    return [Muon(inner), torch.optim.AdamW(outer, lr=2e-3, betas=(0.9, 0.95), weight_decay=0.0)]
