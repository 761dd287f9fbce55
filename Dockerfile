# One image for every role: commands, workers, dashboard. docker-compose.yml builds and runs it.
FROM docker.io/library/python:3.12-slim

# cpu: PyTorch's CPU build. cuda: the one that brings NVIDIA's libraries, several gigabytes larger.
ARG TORCH=cpu

ENV PATH=/usr/local/igkd-hpo/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

# A layer of its own, because it is large and changes seldom.
RUN python3 -m venv /usr/local/igkd-hpo && \
    case "$TORCH" in \
      cpu) pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu ;; \
      cuda) pip install torch torchvision ;; \
      *) echo "TORCH=$TORCH: it is cpu or cuda" >&2; exit 2 ;; \
    esac

# Copied, not mounted: Podman's build cache does not look at what is mounted, and would keep an old version.
COPY . /usr/local/src/igkd-hpo
RUN pip install /usr/local/src/igkd-hpo

# Named volumes take the owner of the folder that they are mounted on.
RUN useradd --uid 1000 --create-home igkd-hpo && \
    install -d -o igkd-hpo -g igkd-hpo /srv/igkd-hpo /srv/igkd-hpo/storage /srv/igkd-hpo/data
USER 1000:1000
WORKDIR /srv/igkd-hpo
ENV IGKD_HPO_DATA=/srv/igkd-hpo/data

ENTRYPOINT ["igkd-hpo"]
CMD ["--help"]
