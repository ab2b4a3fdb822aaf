"""Reports: tables, figures, pages and TensorBoard files, from the records of a study alone."""
