// A compiled part of a model, whatever executes it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "manifest.h"
#include "tensor.h"

namespace dtg::host {

// Where engines compute.
struct Place {
    std::string device;  // "cpu" or "cuda"
    int device_index;
    int threads;
};

// A pure function of tensors in host memory.  Calls of one engine are made one after the other.
class Engine {
  public:
    explicit Engine(const Component& component) : component_(component) {}
    virtual ~Engine() = default;
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    // The outputs by name, in memory of their own: the next call does not touch it.  Engine error
    // for a missing or unknown name, another type, or a shape that it was not compiled for.
    Tensors operator()(const Inputs& inputs);

  protected:
    // `inputs` in the component's order; so are the results.
    virtual std::vector<Tensor> run(const std::vector<const Tensor*>& inputs) = 0;

    const Component component_;
};

// The runtimes of this build with the versions of their libraries, by the names that a bundle's
// needs have for these.
std::map<std::string, std::string> runtime_versions();

// The component whose files lie in `folder`; engine error where this build has not the runtime.
std::unique_ptr<Engine> open_engine(const std::string& runtime, const std::string& folder,
                                    const Component& component, const Place& place);

// One pair for each adapter; those that a build has are listed in engine.cpp.
std::string aot_version();
std::unique_ptr<Engine> open_aot(const std::string& path, const Component&, const Place&);
std::string ort_version();
std::unique_ptr<Engine> open_ort(const std::string& path, const Component&, const Place&);
std::string tensorrt_version();
std::unique_ptr<Engine> open_tensorrt(const std::string& path, const Component&, const Place&);

}  // namespace dtg::host
