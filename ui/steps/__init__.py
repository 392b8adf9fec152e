"""The steps of the walkthrough and the page of runs, one file each."""
