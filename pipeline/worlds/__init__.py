"""Worlds: whose words prompts use, and which judges know them."""
