"""On-policy distillation: the student writes, and the teacher answers for every token that it wrote."""
