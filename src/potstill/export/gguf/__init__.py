"""GGUF: writes a model of transformers and its tokenizer as one file in llama.cpp's format."""
