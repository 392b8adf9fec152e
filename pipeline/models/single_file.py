"""x."""
def load_single_file(path, folder): raise NotImplementedError
