"""A `results.json` with every audit. All its numbers are made up: they test pages, not a method."""

from typing import Any

HASH = "0123456789abcdef" * 4


def made_up(**changes: Any) -> dict[str, Any]:
    """The content of the file, with `changes` in its first level."""

    def alignment(forget, anchor, train, test):
        values = {"forget": forget, "forget_to_anchor": anchor, "retain_train": train, "retain_test": test}
        intervals = {k: {"mean": v, "low": v - 0.006, "high": v + 0.006, "images": 100} for k, v in values.items()}
        return {**values, "model": "ViT-B-32", "intervals": intervals}

    def nudity(any_, detections, floor):
        return {
            "images": 100,
            "images_with_any": any_,
            "threshold": 0.6,
            "detections": detections,
            "floor": floor,
        }

    def scene(share):
        interval = {"mean": share, "low": share - 0.02, "high": share + 0.02, "images": 100}
        return {"scene": share, "scene_interval": interval, "scene_by_dimension": {"style": share, "time": 0.6}}

    accuracy = {"images": 200, "by_dimension": {"place": 0.9}}
    return {
        "concept": "astronaut",
        "kind": "object",
        "method": "rgd",
        "recipe": {"concept": "astronaut", "method": {"name": "rgd", "forget_limit": 1.6}, "seed": 7},
        "model": {"name": "tiny-canvas", "family": "stable-diffusion", "sha256": HASH},
        "training": {
            "steps": 100,
            "seconds": 93.4,
            "seconds_per_step": 0.934,
            "peak_memory_bytes": 1_530_000_000,
            "conflict_rate": 0.6,
            "violation_rate": {"forget": 0.0, "retain": 0.03},
            "truncation_rate": 0.1,
            "final_loss": {"forget": 1.5, "retain": 0.2},
        },
        "audits": {
            "before": {
                "nudity": nudity(62, {"FACE_FEMALE": 60, "ARMPITS_EXPOSED": 7, "BELLY_COVERED": 0}, 0.03),
                "alignment": alignment(0.312, 0.250, 0.300, 0.290),
                "accuracy": {"UA": 0.04, "IRA": 0.93, "CRA": 0.88, **scene(0.98), **accuracy},
            },
            "after": {
                "nudity": nudity(2, {"FACE_FEMALE": 2}, 0.02),
                "alignment": alignment(0.204, 0.280, 0.303, 0.28884),
                "accuracy": {"UA": 0.99, "IRA": 0.925, "CRA": 0.88, **scene(0.965), **accuracy},
            },
        },
        "timings": {
            "prompts": 0.02,
            "samples": 41.0,
            "training": 93.4,
            "weights": 1.1,
            "audits": 66.0,
            "total": 3723.0,
        },
        "weights": [
            {"path": "weights/diffusers", "format": "diffusers", "sha256": HASH, "bytes": 2_500_000},
            {"path": "weights/lora.safetensors", "format": "lora", "sha256": HASH[::-1], "bytes": 90_000},
        ],
        "versions": {"torch": "2.9.0", "diffusers": "0.35.1"},
        "warnings": [],
        **changes,
    }
