"""What HybridParallelStrategy is made of: values on a mesh, variables, batches, and layers that DTensor can't split."""
