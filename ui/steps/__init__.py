"""The five steps and the tab Runs, one file each."""
