"""What to cite with a model: the thesis and the two papers that the method rests on, as in CITATION.cff."""

BIBTEX = """\
```bibtex
@mastersthesis{zhu2024onthefly,
  title = {On-the-fly knowledge distillation model for sentence embedding},
  author = {Zhu, Xuchun},
  school = {Nanyang Technological University},
  year = {2024},
  url = {https://hdl.handle.net/10356/174236}
}
@inproceedings{xu2023distillcse,
  title = {DistillCSE: Distilled Contrastive Learning for Sentence Embeddings},
  author = {Xu, Jiahao and Shao, Wei and Chen, Lihui and Liu, Lemao},
  booktitle = {Findings of the Association for Computational Linguistics: EMNLP 2023},
  year = {2023}
}
@inproceedings{gao2021simcse,
  title = {SimCSE: Simple Contrastive Learning of Sentence Embeddings},
  author = {Gao, Tianyu and Yao, Xingcheng and Chen, Danqi},
  booktitle = {Proceedings of EMNLP 2021},
  year = {2021}
}
```"""
