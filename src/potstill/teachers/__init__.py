"""Teachers: models, live or captured, that give a `TeacherTarget`."""
