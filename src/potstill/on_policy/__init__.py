"""On-policy: samples that the student writes itself, and what is known of them."""
