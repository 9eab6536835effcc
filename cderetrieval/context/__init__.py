"""What a corpus looks like: sampled, embedded once, saved, inspected, refreshed."""
