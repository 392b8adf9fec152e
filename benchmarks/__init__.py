"""The paper's tables and other measurements. `turpentine bench NAME` makes a table."""

TABLES: dict[str, str] = {
    "knobs": ".tables.knobs",
    "sweeps": ".tables.sweeps",
    "classes": ".tables.classes",
    "diversity": ".tables.diversity",
    "sensitivity": ".tables.sensitivity",
    "similarity": ".tables.similarity",
    "update": ".tables.update",
    "concepts": ".tables.concepts",
    "data": ".tables.data",
    "grids": ".tables.grids",
    "tradeoff": ".tables.tradeoff",
    "canvas": ".tables.canvas",
    "transformer": ".tables.transformer",
    "auto": ".tables.auto",
    "images": ".tables.images",
    "forget": ".tables.forget",
    "rules": ".tables.rules",
    "closed": ".tables.closed",
    "chain": ".tables.chain",
    "lora": ".tables.lora",
}
"""Name of a table -> its module in this package, which holds it as `TABLE`. Adding one takes a file and a line here."""
