"""Vectors of texts by Spark's `mapInArrow`.

python examples/spark.py --model my-elmo --data reviews --output my-spark
spark.read.parquet("my-spark").first().vectors    # a list of numbers
"""

import argparse

from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, FloatType

from elmo_hf import TINY, Embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=TINY, help="an ELMo's folder (elmo-tiny)")
    parser.add_argument("--data", required=True, help="a folder of Parquet files")
    parser.add_argument("--output", required=True, help="the folder to write")
    options = parser.parse_args()
    spark = SparkSession.builder.getOrCreate()
    texts = spark.read.parquet(options.data)
    embed = Embed(options.model, layers="average", pool="mean")
    schema = texts.schema.add("vectors", ArrayType(FloatType()))
    texts.mapInArrow(embed, schema).write.parquet(options.output)


if __name__ == "__main__":
    main()
