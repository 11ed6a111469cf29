"""Pretrains an ELMo on your own text: `accelerate launch training/pretrain.py --help`."""

from elmo_hf.pretraining.run import main

if __name__ == "__main__":
    main()
