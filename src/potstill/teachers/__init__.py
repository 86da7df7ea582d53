"""Teachers: prepared models that run beside the student or are captured; each gives a `TeacherTarget`."""
