"""Runs llama.cpp's server: `python llama_cpp_server.py GGUF PORT`. It ends when its standard input is closed."""

import sys

import xllamacpp


def main(gguf: str, port: int) -> None:
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.model_alias = gguf, ["smollm2"]
    settings.hostnames, settings.port, settings.ui = ["127.0.0.1"], port, False
    settings.n_ctx, settings.n_parallel = 512, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(settings)
    print("listens at", server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
