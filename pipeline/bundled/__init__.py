"""How the bundled models were made. Nothing here runs when a model is unlearned."""
