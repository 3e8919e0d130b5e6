"""From a typed configuration to records: read in the order config, runner, measuring, record, run_folder."""
