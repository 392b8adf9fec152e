"""The paper's tables and what else is measured. `turpentine bench NAME` makes a table."""

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
}
"""Name of a table -> the module, in this package, that holds it as `TABLE`. Adding one: its file and a line here."""
