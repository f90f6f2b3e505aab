"""Tests of `atrous serve` under load and under attack; the last line of each is one JSON object.

    python -m tools.prove_serving throughput BUNDLE IMAGES   the server against `atrous segment`, in turns
    python -m tools.prove_serving encodings                  bytes and milliseconds of each form of an answer
    python -m tools.prove_serving faults BUNDLE              slow, half, huge, hostile and cancelled requests
    python -m tools.prove_serving kill BUNDLE IMAGES         SIGTERM at random moments under load
    python -m tools.prove_serving soak BUNDLE IMAGES         mixed requests for minutes: memory, files, threads

Latency at rates below and above the peak is `atrous bench --server URL`. All addresses are 127.0.0.1.
"""
