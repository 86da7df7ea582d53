"""llama.cpp's server in a process of its own: `python llama_cpp_server.py GGUF CONTEXT THREADS`.

It prints its address, and ends when its standard input is closed. llama.cpp ends its whole process where it finds a
file that it cannot compute; here that is not potstill's.
"""

import sys


def main(gguf: str, context: int, threads: int) -> None:
    """Serve a file until the standard input is closed."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = gguf
    settings.hostnames, settings.ui, settings.warmup = ["127.0.0.1"], False, False
    settings.n_ctx, settings.n_parallel = context, 1
    # A text is read in one go, so that its hidden states come together.
    settings.n_batch = settings.n_ubatch = context
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.embedding, settings.embd_normalize = True, -1
    settings.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_NONE
    # What the file does is measured, and not what a cache of 16 bits adds to it.
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    settings.n_gpu_layers, settings.reuse_port = 0, False
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:4]))
