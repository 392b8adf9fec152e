"""The app: a browser page over the functions of `pipeline`. It knows nothing of its own."""
