# One image for every part: docker-compose.yml says which part a container runs.
FROM python:3.12-slim
WORKDIR /src
COPY locks/image.txt locks/image.txt
RUN pip install --no-cache-dir --require-hashes --requirement locks/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY triggers triggers
COPY streams streams
COPY dispatcher dispatcher
COPY endpoint endpoint
COPY service service
COPY instrument_adapters instrument_adapters
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
RUN useradd --create-home upon && mkdir -p /var/lib/upon && chown upon /var/lib/upon
USER upon
ENV UPON_HOME=/var/lib/upon
ENTRYPOINT ["upon"]
CMD ["--help"]
