"""The sources of clinical data: what each data set is called, answers and looks like on disk."""
