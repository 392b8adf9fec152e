"""What several tests are built from: pipelines, short trainings, formulas by hand, old layouts."""
