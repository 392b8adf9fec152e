"""The documents on disk: recipe.yaml, results.json, events.jsonl."""
