"""Two folders of label files to one row per method, case, class and metric."""
