"""CIFAR-100 as its authors publish it; see `cifar10`."""

from igkd_hpo.sources.cifar10 import cifar_source

SOURCE = cifar_source("cifar100", classes=100)
