"""Search: `Retriever` over a `Collection`, one model or several with their rankings fused."""
