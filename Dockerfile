# One image for every role: commands, workers, dashboard. docker-compose.yml builds and runs it.
# `requirements/renew` writes the digest of the image behind its name, where a registry can be reached.
FROM docker.io/library/python:3.12-slim

# cpu: PyTorch's CPU build. cuda: the one that brings NVIDIA's libraries, several gigabytes larger.
ARG TORCH=cpu

ENV PATH=/usr/local/igkd-hpo/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

# A layer of its own, because it is large and changes seldom. Everything has the version and the hash that the lists say,
# but PyTorch's CPU build: that has the version, from PyTorch's own index, whose files have other hashes.
COPY requirements /usr/local/src/requirements
RUN python3 -m venv /usr/local/igkd-hpo && cd /usr/local/src/requirements && \
    case "$TORCH" in \
      cpu) pip install --no-deps --index-url https://download.pytorch.org/whl/cpu \
             $(grep -oE '^torch(vision)?==[0-9.]+' cuda.txt) ;; \
      cuda) pip install --require-hashes -r cuda.txt ;; \
      *) echo "TORCH=$TORCH: it is cpu or cuda" >&2; exit 2 ;; \
    esac && \
    pip install --require-hashes -r run.txt

# Copied, not mounted: Podman's build cache does not look at what is mounted, and would keep an old version.
COPY . /usr/local/src/igkd-hpo
RUN pip install --no-deps --no-build-isolation /usr/local/src/igkd-hpo && pip check

# Named volumes take the owner of the folder that they are mounted on.
RUN useradd --uid 1000 --create-home igkd-hpo && \
    install -d -o igkd-hpo -g igkd-hpo -m 700 /srv/igkd-hpo/storage && \
    install -d -o igkd-hpo -g igkd-hpo /srv/igkd-hpo /srv/igkd-hpo/data
USER 1000:1000
WORKDIR /srv/igkd-hpo
ENV IGKD_HPO_DATA=/srv/igkd-hpo/data

ENTRYPOINT ["igkd-hpo"]
CMD ["--help"]
