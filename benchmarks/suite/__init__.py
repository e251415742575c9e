"""The benchmarks, a module each with BENCHMARK."""
